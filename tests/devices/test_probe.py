from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from devices import Device, Timing, get_device, probe
from ofa.errors import DeviceError
from ofa.exporting.onnx import IR_VERSION, OPSET

module = importlib.import_module("devices.probing")
LOCAL = get_device("local-cpu")


@pytest.mark.parametrize("opset", [11, OPSET, 18, 21])
def test_its_file_is_of_the_versions_that_are_exported(opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(device: Device, models: Mapping[str, Path], **_: object) -> dict[str, Timing]:
        seen.extend(onnx.load(path) for path in models.values())
        return {name: Timing(median_ms=1, p90_ms=1, min_ms=1, std_ms=0, repeats=2) for name in models}

    monkeypatch.setattr(module, "time_models", look)
    probe(Device(name="here", runtime="fake", opset=opset))
    (model,) = seen
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert opset != OPSET or model.ir_version == IR_VERSION


@pytest.mark.parametrize("opset", [OPSET, 21])
def test_the_installed_runtime_reads_it(opset: int) -> None:
    assert probe(Device(name="here", runtime="onnxruntime", opset=opset))["probe"]["median_ms"] > 0


@pytest.mark.parametrize(("installed", "opset", "least"), [("1.17.3", 21, "1.18"), ("1.7.0", 14, "1.8"), ("1.13.1", 18, "1.14")])
def test_a_runtime_that_is_too_old_is_told_which_would_do(installed: str, opset: int, least: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DeviceError("Unsupported model IR version")

    monkeypatch.setattr(module, "describe", lambda device: {"runtime_version": installed})
    monkeypatch.setattr(module, "time_models", refuse)
    with pytest.raises(DeviceError, match=rf"at least {least} to read files of opset {opset} .*, but is {installed}; upgrade it"):
        probe(Device(name="here", runtime="onnxruntime", opset=opset))


def test_other_failures_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DeviceError("it is raining")

    monkeypatch.setattr(module, "time_models", refuse)
    with pytest.raises(DeviceError, match="it is raining"):
        probe(LOCAL)
