"""Without a GPU: all but the execution by the real packages, and the session against stand-ins for driver and engine."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from devices import Device, Settings
from devices.provenance import provenance
from devices.runtimes import Input, cuda, get_runtime, tensorrt
from devices.runtimes.cuda import Gpu, GpuFacts, gpu_facts
from ofa.errors import DeviceError
from ofa.exporting.precision import to_half
from tests.devices.models import conv_model, save_conv

RTX = Device(name="here", runtime="tensorrt-rtx")
has_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None and importlib.util.find_spec("tensorrt_rtx") is None,
    reason="needs the extra 'tensorrt-rtx'",
)


def has_driver() -> bool:
    try:
        ctypes.CDLL(cuda._LIBRARY)
    except OSError:
        return False
    return True


without_gpu = pytest.mark.skipif(has_driver(), reason="this machine has NVIDIA's driver")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The stand-in for the driver, compiled."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("driver.c"))], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture
def gpu_at_hand(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    monkeypatch.setattr(cuda, "_LIBRARY", driver._name)
    return driver


# -- the real package -------------------------------------------------------------------------------------------------


@has_rtx
@without_gpu
def test_without_a_gpu_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"'tensorrt-rtx' needs an NVIDIA GPU and its driver, but this machine has no .*; name a device"):
        get_runtime("tensorrt-rtx").load(save_conv(tmp_path / "a.onnx"), RTX)


@has_rtx
@pytest.mark.parametrize("content", [None, b"", b"this is no ONNX file"])
def test_a_damaged_or_absent_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"broken\.onnx") as caught:
        get_runtime("tensorrt-rtx").load(path, RTX)
    assert "\n" not in str(caught.value)


@has_rtx
def test_inputs_of_open_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"to be timed, but 'images' of 'a\.onnx' is float \[-1, 4, -1, -1\]"):
        get_runtime("tensorrt-rtx").load(save_conv(tmp_path / "a.onnx", batch="batch", side="pixels"), RTX)


@has_rtx
@without_gpu
@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_is_built_and_only_the_gpu_is_missed(tmp_path: Path, gpu_at_hand: ctypes.CDLL, precision: str, batch: int | str) -> None:
    path = tmp_path / "a.onnx"
    model = conv_model(batch=batch)
    path.write_bytes((model if precision == "fp32" else to_half(model)).SerializeToString())
    with pytest.raises(DeviceError, match=r"load 'a\.onnx', but: .*deserialize.* driver .*; export it again, or check the GPU") as caught:
        get_runtime("tensorrt-rtx").load(path, RTX)
    assert "\n" not in str(caught.value)


@has_rtx
@without_gpu
def test_garbage_of_an_earlier_failure_does_not_stop_a_build(
    tmp_path: Path, gpu_at_hand: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_log = tensorrt._log

    def log_of_bad_luck(library: Any) -> Any:
        class Log(type(make_log(library))):  # type: ignore[misc]
            def log(self, severity: Any, msg: str) -> None:
                if gc.isenabled():
                    gc.collect()  # as any allocation may
                super().log(severity, msg)

        return Log()

    monkeypatch.setattr(tensorrt, "_log", log_of_bad_luck)
    path = save_conv(tmp_path / "a.onnx")
    for _ in range(2):
        with pytest.raises(DeviceError, match="deserialize") as caught:
            get_runtime("tensorrt-rtx").load(path, RTX)
        cycle = [caught.value]  # and with it the frames that hold the builder: only the collector frees them
        cycle.append(cycle)  # type: ignore[arg-type]
        del caught, cycle
    assert gc.isenabled()


# -- the driver -------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_and_memory_is_given_back(gpu_at_hand: ctypes.CDLL) -> None:
    before = gpu_at_hand.memories_held()
    gpu = Gpu("tensorrt")
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    address, other = gpu.allocate((2, 4, 3)), gpu.allocate((1,))
    gpu.write(address, values.transpose(0, 2, 1))
    gpu.write(other, np.zeros(1, np.float32))
    gpu.wait()
    np.testing.assert_array_equal(gpu.read(address, (2, 4, 3)), values.transpose(0, 2, 1))
    assert gpu_at_hand.memories_held() == before + 2
    del gpu
    gc.collect()
    assert gpu_at_hand.memories_held() == before


def test_a_driver_without_a_gpu_says_so(gpu_at_hand: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFA_TEST_NO_GPU", "1")
    with pytest.raises(DeviceError, match="needs a working NVIDIA GPU, but its driver answers CUDA_ERROR_NO_DEVICE to cuInit"):
        Gpu("tensorrt")


def test_too_little_memory_is_a_sentence(gpu_at_hand: ctypes.CDLL) -> None:
    with pytest.raises(DeviceError, match="CUDA_ERROR_OUT_OF_MEMORY to cuMemAlloc"):
        Gpu("tensorrt").allocate((1 << 30,))


# -- the session ------------------------------------------------------------------------------------------------------


class Engine:
    """Adds its two inputs, in the memory of the stand-in for the driver."""

    names = ("left", "sum", "right")

    def __init__(self) -> None:
        self.num_io_tensors = len(self.names)
        self.addresses: dict[str, int] = {}
        self.calls = 0

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (2, 3)

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == "sum" else "input"

    def create_execution_context(self) -> Engine:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream
        left, right, total = ((ctypes.c_float * 6).from_address(self.addresses[name]) for name in ("left", "right", "sum"))
        total[:] = [a + b for a, b in zip(left, right, strict=True)]
        self.calls += 1
        return self.calls < 10


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def session(gpu_at_hand: ctypes.CDLL, engine: Engine) -> Any:
    library = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="input"))
    return tensorrt._Session(library, (), engine, Gpu("tensorrt"))


def test_a_session_gives_inputs_takes_outputs_and_times(session: Any, engine: Engine) -> None:
    assert session.inputs() == {"left": Input((2, 3)), "right": Input((2, 3))}
    ones, twos = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    timer = session.timer({"left": ones, "right": ones})
    np.testing.assert_array_equal(session.run({"left": ones, "right": twos})[0], 3)
    assert timer(4) > 0
    assert engine.calls == 5
    np.testing.assert_array_equal(session.run({"left": twos, "right": twos})[0], 4)


def test_a_measurement_names_the_card_and_finds_it_on_the_bus(gpu_at_hand: ctypes.CDLL) -> None:
    assert gpu_facts(0) == GpuFacts("Stand-in", "0000:65:00.0")
    assert gpu_facts(1) is None, "the driver has one"
    on_card = Settings(runtime="pytorch", options=(("device", "cuda"),))
    assert provenance(on_card).gpu == "Stand-in"
    assert provenance(replace(on_card, options=())).gpu is None


def test_an_engine_that_refuses_is_a_sentence(session: Any) -> None:
    zeros = {name: np.zeros((2, 3), np.float32) for name in ("left", "right")}
    with pytest.raises(DeviceError, match="must be able to run this network, but refuses"):
        session.timer(zeros)(10)
    with pytest.raises(DeviceError, match=r"the inputs \['left', 'right'\]"):
        session.run({})
