from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from devices import Device
from devices.runtimes import Option, get_runtime
from ofa.errors import DeviceError
from ofa.exporting.precision import to_half
from tests.devices.models import conv_model, save_conv

if importlib.util.find_spec("openvino") is None:
    pytest.skip("needs the extra 'openvino'", allow_module_level=True)


def openvino(*, threads: int = 1, precision: str = "fp32", **options: Option) -> Device:
    return Device(name="here", runtime="openvino", threads=threads, precision=precision, options=tuple(options.items()))


def test_a_device_that_it_does_not_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"'TPU' is not among CPU"):
        get_runtime("openvino").load(save_conv(tmp_path / "a.onnx"), openvino(device="TPU"))


def test_threads_and_pinning_are_taken(tmp_path: Path) -> None:
    session = get_runtime("openvino").load(save_conv(tmp_path / "a.onnx"), openvino(threads=2, pinning=True))
    assert session.timer({"images": np.ones((1, 4, 8, 8), np.float32)})(3) > 0


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 1e-3)])
def test_it_does_not_compute_in_bfloat16_where_the_processor_could(tmp_path: Path, precision: str, tolerance: float) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes((conv_model() if precision == "fp32" else to_half(conv_model())).SerializeToString())
    values = np.random.default_rng(0).standard_normal((1, 4, 8, 8), dtype=np.float32)
    (output,) = get_runtime("openvino").load(path, openvino(precision=precision)).run({"images": values})
    expected = np.broadcast_to(np.maximum(values.mean(axis=1, keepdims=True), 0), output.shape)
    assert np.abs(output - expected).max() < tolerance * np.abs(expected).max()


def test_nothing_is_reported_to_anybody() -> None:
    code = (
        "import sys\nfrom devices.runtimes import get_runtime\nget_runtime('openvino').version()\n"
        "sys.exit('openvino_telemetry' in sys.modules or 'openvino' not in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
