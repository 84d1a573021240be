"""int8: files compute what the network does, their loss is judged, and a block's border is shared with its neighbours."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ofa.blocks import build_network
from ofa.errors import ExportError, MissingExtraError
from ofa.exporting.onnx import check_model, to_model
from ofa.exporting.precision import PRECISIONS
from ofa.exporting.quantization.borders import inside_a_network
from ofa.exporting.quantization.choosing import CANDIDATES, best_quantized, candidates, outputs_of
from ofa.exporting.quantization.floats import in_floats, layers_of
from ofa.exporting.quantization.repair import repaired
from ofa.exporting.quantization.static import Quantization, quantize
from ofa.families import get_space, lower
from tests.ofa.strategies import TINY_SPACES
from tests.sources import ROOT

SHAPE = (1, 3, 32, 32)


def images(count: int = 8, shape: Sequence[int] = SHAPE) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]


def exported(name: str = "ofa-mbv4-tiny", *, dynamic_batch: bool = False) -> onnx.ModelProto:
    space = get_space(name)
    network = build_network(lower(space, space.largest()), generator=torch.Generator().manual_seed(0))
    return to_model(network.eval(), (1, 3, *[space.resolutions[-1]] * 2), dynamic_batch=dynamic_batch)


def signal_to_noise_db(model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    given = images(shape=[each.dim_value or 1 for each in model.graph.input[0].type.tensor_type.shape.dim])
    wanted = outputs_of(model, given)
    noise = np.square(outputs_of(other, given) - wanted).sum()
    return float(10 * np.log10(np.square(wanted).sum() / noise)) if noise else np.inf


@pytest.mark.parametrize("how", [*CANDIDATES, Quantization(signed=True), Quantization(reduce_range=True)], ids=str)
def test_every_way_gives_nearly_the_networks_outputs(how: Quantization, capfd: pytest.CaptureFixture[str]) -> None:
    model = exported()
    quantized = quantize(model, images(), how)
    assert signal_to_noise_db(model, quantized) > 20
    kinds = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    zeros = [node.input[2] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert {kinds[zero] for zero in zeros} == {onnx.TensorProto.INT8 if how.signed else onnx.TensorProto.UINT8}
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs the extra 'nncf'")
@pytest.mark.parametrize("correction", ["fast", pytest.param("none", marks=pytest.mark.slow), pytest.param("full", marks=pytest.mark.slow)])
def test_nncf_does_too(correction: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model = exported()
    quantized = quantize(model, images(), Quantization(library="nncf", bias_correction=correction))
    assert signal_to_noise_db(model, quantized) > 20
    assert capfd.readouterr() == ("", "")
    layers = layers_of(model)
    assert signal_to_noise_db(model, in_floats(quantized, model, layers)) > signal_to_noise_db(model, quantized)


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs the extra 'nncf'")
def test_nncf_shows_nothing_in_a_notebook_either(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    code = """
import builtins
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

class ZMQInteractiveShell(InteractiveShell):  # by whose name libraries know a notebook
    pass

shell = ZMQInteractiveShell.instance(display_pub_class=CapturingDisplayPublisher)
builtins.get_ipython = lambda: shell
from ofa.exporting.quantization.static import Quantization, quantize
from tests.ofa.exporting.test_quantization import exported, images

quantize(exported(), images(), Quantization(library="nncf", bias_correction="fast"))
print(shell.display_pub.outputs)
"""
    own = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=own, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_nncf_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"ofa-nas\[nncf\]"):
        quantize(exported(), images(), Quantization(library="nncf"))
    assert {each.library for each in candidates()} == {"onnxruntime"}


@pytest.mark.parametrize(
    ("instructions", "bits"), [(("avx2", "avx512f"), {7, 8}), (("avx2", "avx_vnni"), {8}), (("asimd", "asimddp"), {8}), ((), {8})]
)
def test_weights_of_7_bits_are_tried_where_sums_overflow(
    instructions: tuple[str, ...], bits: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa.exporting.quantization.processor.instructions", lambda: instructions)
    assert {7 if each.reduce_range else 8 for each in candidates()} == bits
    assert not any(each.reduce_range for each in candidates(signed=True))


@pytest.mark.parametrize("count", [1, 16, *(pytest.param(each, marks=pytest.mark.slow) for each in (2, 32, 33, 48))])
def test_any_number_of_images_will_do(count: int) -> None:
    model = exported("ofa-resnet50-tiny")
    for clipping in ("minmax", "entropy"):
        assert signal_to_noise_db(model, quantize(model, images(count), Quantization(clipping=clipping))) > 15


@pytest.mark.parametrize("name", TINY_SPACES)
def test_every_family_is_quantized(name: str) -> None:
    model = exported(name)
    quantized = PRECISIONS.get("int8").of(model)
    check_model(quantized)
    assert signal_to_noise_db(model, quantized) > 6
    assert len(quantized.SerializeToString()) < 2 * len(model.SerializeToString())


class Dying(nn.Sequential):
    """A convolution of which one channel gives nearly nothing, behind a batch norm that has seen nothing else of it."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )
        with torch.no_grad():
            self[0].weight[2] *= 1e-9
            self[1].running_var[2] = 1e-12
            self[1].bias[2] = 1.5


def test_a_channel_that_is_constant_is_made_plainly_so() -> None:
    torch.manual_seed(0)
    model = to_model(Dying().eval(), SHAPE)
    found = repaired(model, images())
    weight, bias = (onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer[:2])
    assert not weight[2].any()
    assert weight[[0, 1, 3]].any(axis=(1, 2, 3)).all()
    assert bias[2] == pytest.approx(1.5, rel=1e-3)
    assert signal_to_noise_db(model, found) > 60
    for how in CANDIDATES:
        assert signal_to_noise_db(model, quantize(found, images(), how)) > 25


def test_a_constant_that_several_layers_share_stays() -> None:
    model = to_model(Dying().eval(), SHAPE)
    model.graph.node[-1].input[1] = model.graph.node[-1].input[1]
    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    conv = next(node for node in twice.graph.node if node.op_type == "Conv")
    other = twice.graph.node.add()
    other.CopyFrom(conv)
    other.name, other.output[0] = "other", "other"
    assert repaired(twice, images()).graph.initializer[0] == twice.graph.initializer[0]


def test_layers_that_are_put_back_compute_in_floats() -> None:
    model = exported()
    quantized = quantize(model, images(), Quantization())
    layers = layers_of(model)
    some, every = in_floats(quantized, model, layers[:3]), in_floats(quantized, model, layers)
    check_model(some)
    assert signal_to_noise_db(model, quantized) < signal_to_noise_db(model, every)
    assert in_floats(quantized, model, []).graph.node == quantized.graph.node


# -- choosing ----------------------------------------------------------------------------------------------------------


def likeness(model: onnx.ModelProto) -> Callable[[onnx.ModelProto], float]:
    """A score: how near a file's outputs are to those of a model."""
    given = images()
    wanted = outputs_of(model, given)

    def score(other: onnx.ModelProto) -> float:
        return float(1 / (1 + np.abs(outputs_of(other, given) - wanted).mean() / np.abs(wanted).mean()))

    return score


def test_the_best_way_is_kept() -> None:
    model = exported()
    found = best_quantized(model, images(), likeness(model), ways=CANDIDATES[:3], most_loss=1.0)
    assert found.best == max(found.tried, key=lambda each: each.score)
    assert [each.how for each in found.tried] == list(CANDIDATES[:3])
    assert found.to_json()["float_score"] == 1
    assert found.best.floats == ()


def test_a_way_that_a_library_stumbles_over_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nncf's full correction of biases does over some residual blocks (3.4.0)."""

    def stumbling(model: onnx.ModelProto, images: Any, how: Quantization) -> onnx.ModelProto:
        if how != CANDIDATES[1]:
            raise ExportError("it stumbles")
        return quantize(model, images, how)

    monkeypatch.setattr("ofa.exporting.quantization.choosing.quantize", stumbling)
    model = exported(dynamic_batch=True)
    found = best_quantized(model, images(), likeness(model), ways=CANDIDATES[:3], most_loss=1.0)
    assert (found.best.how, [each.how for each in found.tried]) == (CANDIDATES[1], [CANDIDATES[1]])
    assert found.impossible == dict.fromkeys((CANDIDATES[0], CANDIDATES[2]), "it stumbles")
    assert [each["reason"] for each in found.to_json()["impossible"]] == ["it stumbles"] * 2
    with pytest.raises(ExportError, match="it stumbles"):
        best_quantized(model, images(), likeness(model), ways=CANDIDATES[:1], most_loss=1.0)


def test_layers_stay_in_floats_until_the_loss_is_small() -> None:
    model, told = exported(), list[str]()
    score = likeness(model)
    whole = best_quantized(model, images(), score, ways=CANDIDATES[:1], most_loss=1.0)
    limit = (1 - whole.best.score) * 0.95
    found = best_quantized(
        model,
        images(),
        score,
        ways=CANDIDATES[:1],
        most_loss=limit,
        progress=lambda done, total, text="": told.append(text),
    )
    assert 0 < len(found.best.floats) <= found.layers / 2
    assert set(found.best.floats) <= set(layers_of(model))
    assert 1 - found.best.score <= limit
    assert any("in float32" in text for text in told)


def test_a_network_that_loses_too_much_is_refused_with_numbers() -> None:
    model = exported()
    with pytest.raises(ExportError, match=r"at most -10.0% of its score, but .* from 100.00% to \d\d.\d\d% at best, with \d+ of"):
        best_quantized(model, images(), likeness(model), ways=CANDIDATES[:1], most_loss=-0.1)


@pytest.mark.parametrize(("given", "words"), [([], "at least 1 image"), (images(1, (1, 3, 16, 16)), r"\[1, 3, 16, 16\]; prepare")])
def test_images_that_do_not_fit_are_refused(given: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        quantize(exported(), given, Quantization())


# -- blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_SPACES)
def test_blocks_give_what_the_next_one_takes(name: str) -> None:
    space = get_space(name)
    kinds = list[Any]()
    for placed in lower(space, space.largest()):
        model = to_model(placed.block.build().eval(), (1, *placed.input))
        block = PRECISIONS.get("int8").of_block(model)
        check_model(block)
        session = onnxruntime.InferenceSession(block.SerializeToString(), providers=["CPUExecutionProvider"])
        kinds += [session.get_inputs()[0], session.get_outputs()[0]]
    assert kinds[-1].type == "tensor(float)"
    assert {each.type for each in kinds if len(each.shape) > 2} == {"tensor(uint8)"}
    for given, taken in zip(kinds[1:-1:2], kinds[2::2], strict=True):
        assert given.type == taken.type


def test_a_block_inside_computes_the_integers_of_the_block_alone() -> None:
    space = get_space("ofa-mbv3-tiny")
    placed = lower(space, space.largest())[2]
    model = to_model(placed.block.build().eval(), (1, *placed.input))
    alone = quantize(model, images(shape=(1, *placed.input)), Quantization())
    inside = inside_a_network(alone)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in alone.graph.initializer}
    first = next(node for node in alone.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "images")
    last = next(node for node in alone.graph.node if node.op_type == "DequantizeLinear" and node.output[0] == alone.graph.output[0].name)
    (image,) = images(1, (1, *placed.input))
    scale, zero = constants[first.input[1]], constants[first.input[2]]
    integers = np.clip(np.round(image / scale) + zero, 0, 255).astype(np.uint8)
    given = (outputs_of(inside, [integers]).astype(np.float32) - constants[last.input[2]]) * constants[last.input[1]]
    np.testing.assert_allclose(given, outputs_of(alone, [image]), atol=1.01 * float(constants[last.input[1]]))
