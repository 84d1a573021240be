"""What every runtime must do; a class of tests that derives from this one gives the settings."""

from __future__ import annotations

import dataclasses
import gc
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from devices import Device, Settings
from devices.running import DeviceNetwork
from devices.runtimes import Array, Input, Runtime, get_runtime
from ofa.blocks import build_network
from ofa.errors import DeviceError
from ofa.exporting.formats import FORMATS, write_file
from ofa.exporting.onnx import to_model
from ofa.exporting.precision import PRECISIONS
from ofa.exporting.quantization.choosing import outputs_of
from ofa.families import get_space, lower
from tests.devices.models import conv_model
from tests.ofa.strategies import TINY_SPACES

__all__ = ["RuntimeContract"]


def images(*shape: int) -> dict[str, Array]:
    return {"images": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}


def saved(settings: Settings, folder: Path, **conv: Any) -> Path:
    """The file of a ``conv_model`` in the format that the runtime takes."""
    return write_file(conv_model(**conv).SerializeToString(), folder, settings.format)


class RuntimeContract:
    @pytest.fixture
    def settings(self) -> Settings:
        raise NotImplementedError

    @pytest.fixture
    def runtime(self, settings: Settings) -> Runtime:
        return get_runtime(settings.runtime)

    def test_all_options_have_defaults(self, runtime: Runtime, settings: Settings) -> None:
        assert dict(Settings(runtime=settings.runtime).options) == dict(runtime.options)

    def test_it_names_itself_and_its_version(self, runtime: Runtime, settings: Settings) -> None:
        assert runtime.name == settings.runtime
        assert runtime.version()
        assert {"fp32"} <= set(runtime.precisions) <= {"fp32", "fp16", "int8"}

    def test_it_computes_what_the_file_says(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        session = runtime.load(saved(settings, tmp_path), settings)
        inputs = images(1, 4, 8, 8)
        (output,) = session.run(inputs)
        mean = inputs["images"].mean(axis=1, keepdims=True)
        np.testing.assert_allclose(output, np.broadcast_to(np.maximum(mean, 0), (1, 4, 8, 8)), atol=1e-6)
        np.testing.assert_array_equal(session.run(inputs)[0], output)

    def test_it_tells_the_shapes_of_inputs(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        session = runtime.load(saved(settings, tmp_path, channels=3, side=16, batch=2), settings)
        assert session.inputs() == {"images": Input((2, 3, 16, 16))}

    def test_it_runs_in_an_agent(self, settings: Settings, tmp_path: Path) -> None:
        device = Device(name="there", runtime=settings.runtime, options=settings.options, batch=2)
        images_N = images(3, 4, 8, 8)["images"]
        with DeviceNetwork(device, saved(settings, tmp_path, batch=2), output=(4, 8, 8), name="conv") as network:
            found = network(images_N)
        np.testing.assert_allclose(found, np.broadcast_to(np.maximum(images_N.mean(axis=1, keepdims=True), 0), found.shape), atol=1e-6)

    def test_time_grows_with_calls_and_with_work(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        small = runtime.load(saved(settings, tmp_path), settings).timer(images(1, 4, 8, 8))
        large = runtime.load(saved(settings, tmp_path, channels=64, side=64, layers=4), settings).timer(images(1, 64, 64, 64))

        def quickest(timer: object, calls: int) -> float:
            assert callable(timer)
            return min(timer(calls) for _ in range(10))

        assert 0 < quickest(small, 1) < quickest(large, 1)
        assert quickest(large, 1) * 2 < quickest(large, 8)

    def test_a_session_survives_many_calls_with_the_same_output(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        session = runtime.load(saved(settings, tmp_path), settings)
        inputs = images(1, 4, 8, 8)
        before = session.run(inputs)[0].copy()
        session.timer(inputs)(5)
        np.testing.assert_array_equal(session.run(inputs)[0], before)

    def test_two_sessions_do_not_disturb_each_other(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        inputs, others = images(1, 4, 8, 8), images(2, 8, 4, 4)
        first = runtime.load(saved(settings, tmp_path), settings)
        alone, first_timer = first.run(inputs)[0], first.timer(inputs)
        second = runtime.load(saved(settings, tmp_path, batch=2, channels=8, side=4, layers=3), settings)
        others_alone, second_timer = second.run(others)[0], second.timer(others)
        for _ in range(2):
            assert first_timer(2) > 0
            assert second_timer(2) > 0
            np.testing.assert_array_equal(first.run(inputs)[0], alone)
            np.testing.assert_array_equal(second.run(others)[0], others_alone)

    @pytest.mark.parametrize("name", TINY_SPACES)
    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_it_computes_what_pytorch_does(self, runtime: Runtime, settings: Settings, tmp_path: Path, name: str, precision: str) -> None:
        if precision not in runtime.precisions:
            pytest.skip(f"{settings.runtime} has no {precision}")
        space = get_space(name)
        arch = space.sample(np.random.default_rng(0))
        network = build_network(lower(space, arch), generator=torch.Generator().manual_seed(0)).eval()
        shape = (1, 3, arch.resolution, arch.resolution)
        model = to_model(network, shape)
        path = write_file(PRECISIONS.get(precision).of(model).SerializeToString(), tmp_path, settings.format)
        inputs = images(*shape)
        with torch.inference_mode():
            expected = network(torch.from_numpy(inputs["images"])).numpy()
        (output,) = runtime.load(path, dataclasses.replace(settings, precision=precision)).run(inputs)
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected, atol=(1e-4 if precision == "fp32" else 2e-2) * np.abs(expected).max())

    def test_blocks_of_quantized_networks_take_and_give_integers(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        if "int8" not in runtime.precisions:
            pytest.skip(f"{settings.runtime} has no int8")
        space = get_space("ofa-mbv3-tiny")
        placed = lower(space, space.largest())[2]
        model = PRECISIONS.get("int8").of_block(to_model(placed.block.build().eval(), (1, *placed.input)))
        path = write_file(model.SerializeToString(), tmp_path, settings.format)
        session = runtime.load(path, dataclasses.replace(settings, precision="int8"))
        assert session.inputs() == {"images": Input((1, *placed.input), "uint8")}
        given = {"images": np.random.default_rng(0).integers(0, 256, (1, *placed.input), dtype=np.uint8)}
        (output,) = session.run(given)
        assert output.dtype == np.uint8
        np.testing.assert_allclose(output.astype(int), outputs_of(model, [given["images"]]).astype(int), atol=2)
        assert session.timer(given)(2) > 0
        with pytest.raises(DeviceError, match=r"must be uint8 \[1, \d+, \d+, \d+\], but is float32"):
            session.run({"images": given["images"].astype(np.float32)})

    @pytest.mark.parametrize("content", [None, b"", b"this is no ONNX file"])
    def test_a_damaged_or_absent_file_is_one_sentence(
        self, runtime: Runtime, settings: Settings, tmp_path: Path, content: bytes | None
    ) -> None:
        path = tmp_path / f"broken{FORMATS.get(settings.format).suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DeviceError, match=re.escape(path.name)) as caught:
            runtime.load(path, settings)
        assert "\n" not in str(caught.value)

    def test_inputs_of_open_pixels_are_refused(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        with pytest.raises(DeviceError, match="fixed but for the batch to be timed"):
            runtime.load(saved(settings, tmp_path, batch="batch", side="pixels"), settings)

    @pytest.mark.parametrize("batch", [1, 3])
    def test_an_open_batch_is_the_devices(self, runtime: Runtime, settings: Settings, tmp_path: Path, batch: int) -> None:
        session = runtime.load(saved(settings, tmp_path, batch="N", layers=2), dataclasses.replace(settings, batch=batch))
        inputs = images(batch, 4, 8, 8)
        assert session.inputs() == {"images": Input((batch, 4, 8, 8))}
        fixed = runtime.load(saved(settings, tmp_path, batch=batch, layers=2), settings)
        np.testing.assert_array_equal(session.run(inputs)[0], fixed.run(inputs)[0])
        assert session.timer(inputs)(3) > 0

    def test_a_timer_owns_what_it_touches(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        session = runtime.load(saved(settings, tmp_path), settings)
        inputs = images(1, 4, 8, 8)
        timer = session.timer(inputs)
        inputs["images"].fill(np.nan)
        given = weakref.ref(inputs.pop("images"))
        del session
        gc.collect()
        assert given() is None, "a timer has copies of its own"
        assert timer(3) > 0

    def test_wrong_inputs_are_refused(self, runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
        session = runtime.load(saved(settings, tmp_path), settings)
        with pytest.raises(DeviceError, match="inputs \\['images'\\]"):
            session.run({"pictures": images(1, 4, 8, 8)["images"]})
        with pytest.raises(DeviceError, match=r"float32 \[1, 4, 8, 8\]"):
            session.timer(images(1, 4, 9, 9))
