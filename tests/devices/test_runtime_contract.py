"""What every runtime must do. A new one is entered in RUNTIMES and passes all of this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices import Device
from devices.runtimes import Array, Runtime, get_runtime, runtime_names
from ofa.errors import DeviceError
from tests.devices.models import save_conv

RUNTIMES = ("fake", "onnxruntime")


@pytest.fixture(params=RUNTIMES)
def device(request: pytest.FixtureRequest) -> Device:
    return Device(name="here", runtime=request.param)


@pytest.fixture
def runtime(device: Device) -> Runtime:
    return get_runtime(device.runtime)


def images(*shape: int) -> dict[str, Array]:
    return {"images": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}


def test_every_runtime_is_under_contract() -> None:
    assert set(RUNTIMES) == set(runtime_names())


def test_it_names_itself_and_its_version(runtime: Runtime, device: Device) -> None:
    assert runtime.name == device.runtime
    assert runtime.version()


def test_it_computes_what_the_file_says(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx"), device)
    inputs = images(1, 4, 8, 8)
    (output,) = session.run(inputs)
    mean = inputs["images"].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(output, np.broadcast_to(np.maximum(mean, 0), (1, 4, 8, 8)), atol=1e-6)
    np.testing.assert_array_equal(session.run(inputs)[0], output)


def test_it_tells_the_shapes_of_inputs(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx", channels=3, side=16, batch=2), device)
    assert session.input_shapes() == {"images": (2, 3, 16, 16)}


def test_time_grows_with_calls_and_with_work(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    small = runtime.load(save_conv(tmp_path / "small.onnx"), device).timer(images(1, 4, 8, 8))
    large = runtime.load(save_conv(tmp_path / "large.onnx", channels=64, side=64, layers=4), device).timer(images(1, 64, 64, 64))

    def quickest(timer: object, calls: int) -> float:
        assert callable(timer)
        return min(timer(calls) for _ in range(10))

    assert 0 < quickest(small, 1) < quickest(large, 1)
    assert quickest(large, 1) * 2 < quickest(large, 8)


def test_a_session_survives_many_calls_with_the_same_output(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx"), device)
    inputs = images(1, 4, 8, 8)
    before = session.run(inputs)[0].copy()
    session.timer(inputs)(5)
    np.testing.assert_array_equal(session.run(inputs)[0], before)


@pytest.mark.parametrize("content", [None, b"", b"this is no ONNX file"])
def test_a_damaged_or_absent_file_is_one_sentence(runtime: Runtime, device: Device, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"broken\.onnx") as caught:
        runtime.load(path, device)
    assert "\n" not in str(caught.value)


def test_inputs_without_fixed_shape_are_refused(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="fixed shape"):
        runtime.load(save_conv(tmp_path / "a.onnx", batch="batch"), device)


def test_wrong_inputs_are_refused(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx"), device)
    with pytest.raises(DeviceError, match="inputs \\['images'\\]"):
        session.run({"pictures": images(1, 4, 8, 8)["images"]})
    with pytest.raises(DeviceError, match=r"float32 \[1, 4, 8, 8\]"):
        session.timer(images(1, 4, 9, 9))


def test_all_options_have_defaults_that_a_device_accepts(runtime: Runtime, device: Device) -> None:
    assert dict(device.options) == dict(runtime.options)


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match="did you mean 'onnxruntime'"):
        get_runtime("onnx-runtime")
