"""The runtimes under their contract. A new one is entered in SETTINGS."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from devices import Settings
from devices.runtimes import RUNTIMES, get_runtime
from ofa.errors import DeviceError
from tests.devices.models import save_conv
from tests.devices.runtime_contract import RuntimeContract

SETTINGS = {
    "fake": Settings(runtime="fake"),
    "onnxruntime": Settings(runtime="onnxruntime"),
    "openvino": Settings(runtime="openvino"),
    "pytorch": Settings(runtime="pytorch"),
    "pytorch, compiled": Settings(runtime="pytorch", options=(("compiled", True),)),
    "pytorch, on a GPU": Settings(runtime="pytorch", options=(("device", "cuda"),)),
    "pytorch, compiled on a GPU": Settings(runtime="pytorch", options=(("compiled", True), ("device", "cuda"))),
    "tensorrt": Settings(runtime="tensorrt"),
    "tensorrt-rtx": Settings(runtime="tensorrt-rtx"),
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
    settings = SETTINGS[key]
    with TemporaryDirectory() as folder:
        try:
            get_runtime(settings.runtime).load(save_conv(Path(folder) / "a.onnx"), settings)
        except DeviceError as error:
            if not NOT_HERE.search(str(error)):
                raise
            return str(error)
    return ""


class TestEveryRuntime(RuntimeContract):
    @pytest.fixture(params=[pytest.param(key, marks=MARKS.get(key, ())) for key in SETTINGS])
    def settings(self, request: pytest.FixtureRequest) -> Settings:
        reason = why_not_here(request.param)
        if reason:
            pytest.skip(reason)
        return SETTINGS[request.param]


def test_every_runtime_is_under_contract() -> None:
    assert {settings.runtime for settings in SETTINGS.values()} == set(RUNTIMES)


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_one_that_is_not_installed_says_what_to_install(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_conv(tmp_path / "a.onnx")
    for module in ("onnx", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match=rf"runtime '{name}' needs .* not installed; install it with: pip install \S+") as caught:
        get_runtime(name).load(path, Settings(runtime=name))
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
