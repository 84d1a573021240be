"""What every runtime must do. A new one is entered in DEVICES and passes all of this."""

from __future__ import annotations

import dataclasses
import gc
import re
import sys
import weakref
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from devices import Device
from devices.runtimes import Array, Runtime, get_runtime, runtime_names
from ofa.blocks import build_network
from ofa.errors import DeviceError
from ofa.export.onnx import to_half, to_model
from ofa.families import get_space, lower
from tests.devices.models import save_conv

DEVICES = {
    "fake": Device(name="here", runtime="fake"),
    "onnxruntime": Device(name="here", runtime="onnxruntime"),
    "openvino": Device(name="here", runtime="openvino"),
    "pytorch": Device(name="here", runtime="pytorch"),
    "pytorch, compiled": Device(name="here", runtime="pytorch", options=(("compiled", True),)),
    "pytorch, on a GPU": Device(name="here", runtime="pytorch", options=(("device", "cuda"),)),
    "pytorch, compiled on a GPU": Device(name="here", runtime="pytorch", options=(("compiled", True), ("device", "cuda"))),
    "tensorrt": Device(name="here", runtime="tensorrt"),
    "tensorrt-rtx": Device(name="here", runtime="tensorrt-rtx"),
}
# What torch's own compiler warns of: what it is built on, and on a GPU that float32 is not rounded to TF32, which is the purpose.
COMPILED = (
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch[.]_inductor"),
)
MARKS = {
    "pytorch, compiled": COMPILED,
    "pytorch, on a GPU": (pytest.mark.gpu,),
    "pytorch, compiled on a GPU": (pytest.mark.gpu, *COMPILED),
    "tensorrt": (pytest.mark.gpu,),
    "tensorrt-rtx": (pytest.mark.gpu,),
}
NOT_HERE = re.compile("not installed|needs an NVIDIA GPU|must reach 'cuda'")


@cache
def why_not_here(key: str) -> str:
    """Why a runtime cannot be tried on this machine; "" if it can."""
    device = DEVICES[key]
    with TemporaryDirectory() as folder:
        try:
            get_runtime(device.runtime).load(save_conv(Path(folder) / "a.onnx"), device)
        except DeviceError as error:
            if not NOT_HERE.search(str(error)):
                raise
            return str(error)
    return ""


@pytest.fixture(params=[pytest.param(key, marks=MARKS.get(key, ())) for key in DEVICES])
def device(request: pytest.FixtureRequest) -> Device:
    reason = why_not_here(request.param)
    if reason:
        pytest.skip(reason)
    return DEVICES[request.param]


@pytest.fixture
def runtime(device: Device) -> Runtime:
    return get_runtime(device.runtime)


def images(*shape: int) -> dict[str, Array]:
    return {"images": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}


def test_every_runtime_is_under_contract() -> None:
    assert {device.runtime for device in DEVICES.values()} == set(runtime_names())


def test_it_names_itself_and_its_version(runtime: Runtime, device: Device) -> None:
    assert runtime.name == device.runtime
    assert runtime.version()
    assert {"fp32"} <= set(runtime.precisions) <= {"fp32", "fp16"}


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


def test_two_sessions_do_not_disturb_each_other(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    inputs, others = images(1, 4, 8, 8), images(2, 8, 4, 4)
    first = runtime.load(save_conv(tmp_path / "a.onnx"), device)
    alone, first_timer = first.run(inputs)[0], first.timer(inputs)
    second = runtime.load(save_conv(tmp_path / "b.onnx", batch=2, channels=8, side=4, layers=3), device)
    others_alone, second_timer = second.run(others)[0], second.timer(others)
    for _ in range(2):
        assert first_timer(2) > 0
        assert second_timer(2) > 0
        np.testing.assert_array_equal(first.run(inputs)[0], alone)
        np.testing.assert_array_equal(second.run(others)[0], others_alone)


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_computes_what_pytorch_does(runtime: Runtime, device: Device, tmp_path: Path, name: str, precision: str) -> None:
    if precision not in runtime.precisions:
        pytest.skip(f"{device.runtime} has no {precision}")
    space = get_space(name)
    arch = space.sample(np.random.default_rng(0))
    network = build_network(lower(space, arch), generator=torch.Generator().manual_seed(0)).eval()
    shape = (1, 3, arch.resolution, arch.resolution)
    model = to_model(network, shape)
    path = tmp_path / "network.onnx"
    path.write_bytes((model if precision == "fp32" else to_half(model)).SerializeToString())
    inputs = images(*shape)
    with torch.inference_mode():
        expected = network(torch.from_numpy(inputs["images"])).numpy()
    (output,) = runtime.load(path, dataclasses.replace(device, precision=precision)).run(inputs)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, atol=(1e-4 if precision == "fp32" else 2e-2) * np.abs(expected).max())


@pytest.mark.parametrize("content", [None, b"", b"this is no ONNX file"])
def test_a_damaged_or_absent_file_is_one_sentence(runtime: Runtime, device: Device, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"broken\.onnx") as caught:
        runtime.load(path, device)
    assert "\n" not in str(caught.value)


def test_inputs_of_open_pixels_are_refused(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="fixed but for the batch to be timed"):
        runtime.load(save_conv(tmp_path / "a.onnx", batch="batch", side="pixels"), device)


@pytest.mark.parametrize("batch", [1, 3])
def test_an_open_batch_is_the_devices(runtime: Runtime, device: Device, tmp_path: Path, batch: int) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx", batch="N", layers=2), dataclasses.replace(device, batch=batch))
    inputs = images(batch, 4, 8, 8)
    assert session.input_shapes() == {"images": (batch, 4, 8, 8)}
    fixed = runtime.load(save_conv(tmp_path / "b.onnx", batch=batch, layers=2), device)
    np.testing.assert_array_equal(session.run(inputs)[0], fixed.run(inputs)[0])
    assert session.timer(inputs)(3) > 0


def test_a_timer_owns_what_it_touches(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx"), device)
    inputs = images(1, 4, 8, 8)
    timer = session.timer(inputs)
    inputs["images"].fill(np.nan)
    given = weakref.ref(inputs.pop("images"))
    del session
    gc.collect()
    assert given() is None, "a timer has copies of its own"
    assert timer(3) > 0


def test_wrong_inputs_are_refused(runtime: Runtime, device: Device, tmp_path: Path) -> None:
    session = runtime.load(save_conv(tmp_path / "a.onnx"), device)
    with pytest.raises(DeviceError, match="inputs \\['images'\\]"):
        session.run({"pictures": images(1, 4, 8, 8)["images"]})
    with pytest.raises(DeviceError, match=r"float32 \[1, 4, 8, 8\]"):
        session.timer(images(1, 4, 9, 9))


@pytest.mark.parametrize("name", runtime_names())
def test_all_options_have_defaults_that_a_device_accepts(name: str) -> None:
    assert dict(Device(name="here", runtime=name).options) == dict(get_runtime(name).options)


@pytest.mark.parametrize("name", runtime_names())
def test_one_that_is_not_installed_says_what_to_install(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_conv(tmp_path / "a.onnx")
    for module in ("onnx", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match=rf"runtime '{name}' needs .* not installed; install it with: pip install \S+") as caught:
        get_runtime(name).load(path, Device(name="here", runtime=name))
    assert "\n" not in str(caught.value)


def test_a_library_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(DeviceError, match=r"must be able to load openvino on the device, but: libtbb"):
        get_runtime("openvino").version()


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match="did you mean 'onnxruntime'"):
        get_runtime("onnx-runtime")
