from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from devices import Device
from devices.runtimes import get_runtime
from devices.runtimes import onnxruntime as onnxruntime_room
from ofa.errors import DeviceError
from tests.devices.models import save_conv


def on(provider: str) -> Device:
    return Device(name="here", runtime="onnxruntime", options=(("provider", provider),))


def test_a_provider_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"'NoExecutionProvider' is not among .*CPUExecutionProvider; install the package"):
        get_runtime("onnxruntime").load(save_conv(tmp_path / "a.onnx"), on("NoExecutionProvider"))


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has no provider that executes nothing"
)
def test_the_processor_is_not_timed_under_the_name_of_a_provider_that_executes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"AzureExecutionProvider leaves all of it to the processor"):
        get_runtime("onnxruntime").load(save_conv(tmp_path / "a.onnx"), on("AzureExecutionProvider"))


@dataclass(eq=False)
class Value:
    array: np.ndarray


class Releases:
    """A binding and values as ONNX Runtime 1.18 to 1.28 have them: a value holds its array, a binding holds addresses only."""

    def __init__(self) -> None:
        self.freed: list[str] = []

    def ortvalue_from_numpy(self, array: np.ndarray, *place: object) -> Value:
        value = Value(array)
        weakref.finalize(value, self.freed.append, "a value")
        weakref.finalize(array, self.freed.append, "an array")
        return value

    def session(self) -> SimpleNamespace:
        argument = SimpleNamespace(name="x", shape=["N", 2], type="tensor(float)")
        binding = SimpleNamespace(
            bind_ortvalue_input=lambda name, value: None,
            bind_ortvalue_output=lambda name, value: None,
            synchronize_inputs=lambda: None,
            synchronize_outputs=lambda: None,
        )
        return SimpleNamespace(
            get_inputs=lambda: [argument],
            get_outputs=lambda: [argument],
            io_binding=lambda: binding,
            run=lambda names, inputs: [np.zeros((1, 2), np.float32)],
            run_with_iobinding=lambda binding: None,
        )


def test_what_a_call_writes_to_lives_as_long_as_its_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    releases = Releases()
    monkeypatch.setattr(onnxruntime_room, "_library", lambda: SimpleNamespace(OrtValue=releases))
    timer = onnxruntime_room._Session(releases.session(), Path("x.onnx"), "cpu").timer({"x": np.zeros((1, 2), np.float32)})
    gc.collect()
    assert timer(2) >= 0
    assert releases.freed == []
    del timer
    gc.collect()
    assert sorted(releases.freed) == ["a value", "a value", "an array", "an array"]
