from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from devices import Device
from devices.runtimes import get_runtime
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
