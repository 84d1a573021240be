from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from devices import Device
from devices.runtimes import Option, get_runtime
from ofa.blocks.token_modules import AddPositions, Attention, TokenLinear, TokenMean, Tokens
from ofa.errors import DeviceError
from ofa.exporting.onnx import to_model
from ofa.exporting.operators import MODULES
from ofa.opsets import NEWEST_OPSET, OPSET
from tests.devices.models import conv_model, save_conv

SHAPE = (2, 4, 9, 9)


def pytorch(*, threads: int = 1, **options: Option) -> Device:
    return Device(name="here", runtime="pytorch", threads=threads, options=tuple(options.items()))


def save(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


class Twice(nn.Module):
    """Adds or multiplies a value and its activation."""

    def __init__(self, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.join, self.act = join, nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(x, self.act(x))


MADE = (
    nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
    nn.BatchNorm2d(4, eps=1e-3),
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Identity(),
    nn.Dropout(),
    nn.AvgPool2d(2, ceil_mode=True),
    nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    nn.AdaptiveAvgPool2d(1),
    nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 9, 3)),
    nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 9, 3, bias=False)),
    Twice(torch.add),
    Twice(torch.mul),
    nn.Sequential(
        AddPositions(4, 9, 9),
        Tokens(),
        nn.LayerNorm(4),
        Attention(*(TokenLinear(4, 4) for _ in range(4)), head_channels=2),
        nn.GELU(),
        TokenLinear(4, 3, bias=False),
        TokenMean(),
    ),
)


def test_every_module_that_is_exported_is_tried_here() -> None:
    assert {type(part) for module in MADE for part in module.modules()} >= set(MODULES)


@pytest.mark.parametrize("module", MADE, ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_operator_that_is_exported_is_read(module: nn.Module, channels_last: bool, tmp_path: Path) -> None:
    # Layer norms, and means over tokens, have other forms in newer opsets.
    path = save(tmp_path / "a.onnx", to_model(module, SHAPE, opset=NEWEST_OPSET if channels_last else OPSET))
    values = 3 * np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    (output,) = get_runtime("pytorch").load(path, pytorch(channels_last=channels_last)).run({"images": values})
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    model = conv_model()
    model.graph.node[1].op_type = "Softplus"
    with pytest.raises(DeviceError, match=r"'a\.onnx' has Softplus; it knows Add, "):
        get_runtime("pytorch").load(save(tmp_path / "a.onnx", model), pytorch())


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("HardSigmoid", {}, "HardSigmoid with alpha 1/6"),
        ("Flatten", {"axis": 2}, "Flatten along axis 1"),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, "padding alike on both sides"),
        ("Cast", {"to": TensorProto.DOUBLE}, "casts to float32 and float16"),
    ],
)
def test_a_setting_that_is_not_known_is_named(tmp_path: Path, kind: str, settings: dict[str, object], words: str) -> None:
    model = conv_model()
    del model.graph.node[1]
    model.graph.node.append(helper.make_node(kind, ["conv0"], ["relu0"], **settings))
    with pytest.raises(DeviceError, match=words):
        get_runtime("pytorch").load(save(tmp_path / "a.onnx", model), pytorch())


def test_a_limit_that_is_left_out_is_no_limit(tmp_path: Path) -> None:
    model = conv_model()
    del model.graph.node[1]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "high"))
    model.graph.node.append(helper.make_node("Clip", ["conv0", "", "high"], ["relu0"]))
    session = get_runtime("pytorch").load(save(tmp_path / "a.onnx", model), pytorch())
    values = np.full((1, 4, 8, 8), -3, np.float32)
    np.testing.assert_allclose(session.run({"images": values})[0], -3.0, rtol=1e-6)
    np.testing.assert_allclose(session.run({"images": -values})[0], 0.5, rtol=1e-6)


def test_it_computes_with_the_threads_of_the_device(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        get_runtime("pytorch").load(save_conv(tmp_path / "a.onnx"), pytorch(threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_it_leaves_the_settings_of_the_process_as_they_were(tmp_path: Path) -> None:
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.is_inference_mode_enabled()
    get_runtime("pytorch").load(save_conv(tmp_path / "a.onnx"), pytorch()).timer({"images": np.ones((1, 4, 8, 8), np.float32)})(1)
    assert before == (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.is_inference_mode_enabled())


@pytest.mark.parametrize("place", ["tpu", "meta", "cuda:first", ""])
def test_a_device_that_it_does_not_know_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(DeviceError, match=f"must be cpu, cuda or cuda:N, but is '{place}'"):
        get_runtime("pytorch").load(save_conv(tmp_path / "a.onnx"), pytorch(device=place))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"PyTorch must reach 'cuda', but: .+; name a machine") as caught:
        get_runtime("pytorch").load(save_conv(tmp_path / "a.onnx"), pytorch(device="cuda"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_many_networks_of_one_structure_are_compiled_in_one_process(tmp_path: Path) -> None:
    for channels in range(4, 16):  # PyTorch gives up on a function that it has compiled 8 times
        session = get_runtime("pytorch").load(save_conv(tmp_path / f"{channels}.onnx", channels=channels), pytorch(compiled=True))
        np.testing.assert_allclose(session.run({"images": np.ones((1, channels, 8, 8), np.float32)})[0], 1.0, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": ("/nowhere/g++",), "fx_graph_cache": False}),
        pytest.raises(DeviceError, match="check that there is a comp"),
    ):
        get_runtime("pytorch").load(save_conv(tmp_path / "a.onnx", channels=5, side=7, layers=2), pytorch(compiled=True))
