"""Calls of ``torch.ops.aten``, of which traced models are made, compute the same in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn

from ofa.blocks import batch
from ofa.blocks.token_modules import TokenLinear
from ofa.errors import ExportError
from ofa.exporting.aten import ATEN
from ofa.exporting.onnx import to_model
from ofa.opsets import NEWEST_OPSET, OPSET
from tests.ofa.exporting.test_onnx import run, with_statistics

aten = torch.ops.aten

IMAGES = (4, 6, 8)
TOKENS = (6, 8)


class Calls(nn.Module):
    """A network of calls, with some loose tensors."""

    def __init__(self, compute: Callable[[Calls, Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute
        generator = torch.Generator().manual_seed(5)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.channels, self.matrix, self.token, self.kernel = drawn(4), drawn(5, 8), drawn(1, 1, 8), drawn(6, 2, 3, 3)
        self.register_buffer("spread", torch.rand(4, generator=generator) + 0.5)
        self.register_buffer("table", torch.tensor([[2, 0], [-1, 3]]))
        self.register_buffer("mask", torch.eye(6, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def heads(x: Tensor) -> Tensor:
    return aten.transpose.int(aten.view.default(x, [-1, 6, 2, 4]), 1, 2)


OF_IMAGES: dict[str, Callable[[Calls, Tensor], Tensor]] = {
    **{
        f"{name}.default": lambda _, x, name=name: getattr(aten, name).default(x)
        for name in (
            *("relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "gelu", "elu", "softplus", "exp", "neg", "abs"),
            *("mish", "selu", "erf", "hardtanh", "mean", "sum", "alias", "clone", "contiguous", "detach"),
        )
    },
    "positive": lambda _, x: aten.add.Tensor(
        aten.add.Tensor(aten.sqrt.default(aten.abs.default(x)), aten.rsqrt.default(aten.exp.default(x))),
        aten.log.default(aten.add.Scalar(aten.pow.Tensor_Scalar(x, 2), 1)),
    ),
    "reciprocal.default": lambda _, x: aten.reciprocal.default(aten.exp.default(x)),
    "gelu tanh": lambda _, x: aten.gelu.default(x, approximate="tanh"),
    "leaky_relu.default": lambda _, x: aten.leaky_relu.default(x, 0.2),
    "softplus with beta": lambda _, x: aten.softplus.default(x, 2),
    "clamps": lambda _, x: aten.clamp_max.default(aten.clamp_min.default(aten.clamp.default(x, None, 0.8), -1), 0.5),
    "sums": lambda m, x: aten.rsub.Scalar(
        aten.sub.Scalar(aten.add.Tensor(x, aten.sub.Tensor(x, m.spread.view(4, 1, 1), alpha=3), alpha=2), 1), 2, 0.5
    ),
    "rsub.Tensor": lambda _, x: aten.rsub.Tensor(x, aten.mul.Scalar(x, 3)),
    "products": lambda m, x: aten.div.Tensor(aten.mul.Tensor(aten.div.Scalar(x, 3), aten.view.default(m.channels, [4, 1, 1])), 2.5),
    "true_divide.Tensor": lambda _, x: aten.true_divide.Tensor(x, aten.exp.default(x)),
    "softmax.int": lambda _, x: aten.softmax.int(x, 1),
    "_softmax.default": lambda _, x: aten._softmax.default(x, -1, False),
    "log_softmax.int": lambda _, x: aten.log_softmax.int(x, -1),
    "_log_softmax.default": lambda _, x: aten._log_softmax.default(x, 1, False),
    "mean.dim": lambda _, x: aten.mean.dim(x, [-1, 2], True),
    "sum.dim_IntList": lambda _, x: aten.sum.dim_IntList(x, [1]),
    "extremes": lambda _, x: aten.sub.Tensor(aten.amax.default(x, [2, 3]), aten.amin.default(x, [-2, -1])),
    "var.correction": lambda _, x: aten.var.correction(x, [2, 3], correction=1, keepdim=True),
    "std.correction": lambda _, x: aten.std.correction(x, [1], correction=0),
    "glu.default": lambda _, x: aten.glu.default(x, -3),
    "pixel_unshuffle.default": lambda _, x: aten.pixel_unshuffle.default(x, 2),
    "rms_norm.default": lambda m, x: aten.rms_norm.default(x, [6, 8], m.token[0].expand(6, 8), 1e-3),
    "rms_norm without weights": lambda _, x: aten.rms_norm.default(x, [8]),
    "norms": lambda _, x: aten.add.Tensor(aten.linalg_vector_norm.default(x, 2, [1]), aten.norm.ScalarOpt_dim(x, 1, [1])),
    "max_pool2d.default": lambda _, x: aten.max_pool2d.default(x, [3], [2, 3], [1], 1, True),
    "avg_pool2d.default": lambda _, x: aten.avg_pool2d.default(x, [3, 3], [2], [1], True, False),
    "avg_pool2d with its padding": lambda _, x: aten.avg_pool2d.default(x, [3, 3], [2], [1], True, True),
    "avg_pool2d by its window": lambda _, x: aten.avg_pool2d.default(x, [2]),
    "adaptive_avg_pool2d.default": lambda _, x: aten.adaptive_avg_pool2d.default(x, [1, 1]),
    "adaptive_avg_pool2d of divisors": lambda _, x: aten.adaptive_avg_pool2d.default(x, [3, 2]),
    "adaptive_avg_pool2d of overlapping windows": lambda _, x: aten.adaptive_avg_pool2d.default(x, [4, 11]),
    "adaptive_avg_pool1d of overlapping windows": lambda _, x: aten.adaptive_avg_pool1d.default(aten.flatten.using_ints(x, 2), [5]),
    "adaptive_avg_pool1d.default": lambda _, x: aten.adaptive_avg_pool1d.default(aten.flatten.using_ints(x, 2), [1]),
    "conv2d.default": lambda m, x: aten.conv2d.default(x, m.kernel, None, [2, 1], [1, 0], [1, 2], 2),
    "conv2d.padding": lambda m, x: aten.conv2d.padding(x, m.kernel, None, [1, 1], "same", [1, 1], 2),
    "convolution.default": lambda m, x: aten.convolution.default(x, m.kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2),
    "conv1d.default": lambda m, x: aten.conv1d.default(aten.flatten.using_ints(x, 2), m.kernel[:, :, 0], None, [1], [1], [1], 2),
    "conv1d.padding": lambda m, x: aten.conv1d.padding(aten.flatten.using_ints(x, 2), m.kernel[:, :, 0], None, [1], "valid", [1], 2),
    "batch_norm.default": lambda m, x: aten.batch_norm.default(x, m.channels, None, m.channels, m.spread, False, 0.1, 1e-5, True),
    "group_norm.default": lambda m, x: aten.group_norm.default(x, 2, m.channels, m.spread),
    "layer_norm over two": lambda m, x: aten.layer_norm.default(x, [6, 8], m.matrix[:1].expand(6, 8) * 2, m.token[0].expand(6, 8)),
    "reshapes": lambda _, x: aten.reshape.default(aten._unsafe_view.default(aten.unflatten.int(x, 1, [2, -1]), [-1, 2, 96]), [-1, 4, 6, 8]),
    "flatten the batch": lambda _, x: aten.flatten.using_ints(x, 0, 1),
    "squeezes": lambda _, x: aten.squeeze.dim(
        aten.squeeze.dims(aten.unsqueeze.default(aten.unsqueeze.default(aten.unsqueeze.default(x, 1), -1), 2), [1, -1]), 1
    ),
    "squeeze.default": lambda _, x: aten.squeeze.default(aten.sum.dim_IntList(x, [0], True)),
    "permute.default": lambda _, x: aten.permute.default(x, [0, -1, 1, 2]),
    "t.default": lambda _, x: aten.t.default(aten.t.default(aten.mean.dim(x, [2, 3]))),
    "numpy_T.default": lambda _, x: aten.numpy_T.default(aten.mean.dim(x, [2, 3])),
    "cat.default": lambda _, x: aten.cat.default([x, aten.neg.default(x)], -3),
    "stack.default": lambda _, x: aten.stack.default([x, aten.neg.default(x)], -1),
    "splits": lambda _, x: aten.cat.default(
        [aten.split.Tensor(x, 5, 3)[1], aten.chunk.default(x, 3, -1)[2], aten.split_with_sizes.default(x, [3, 5], 3)[0]], 3
    ),
    "unbind.int": lambda _, x: aten.sub.Tensor(aten.unbind.int(x, 1)[3], aten.unbind.int(x, 1)[0]),
    "slices": lambda _, x: aten.slice.Tensor(aten.slice.Tensor(aten.slice.Tensor(x, 0, 0, 2**63 - 1), -1, 1, -1, 2), 2, None, 4),
    "select.int": lambda _, x: aten.select.int(x, 1, -2),
    "index_select.default": lambda m, x: aten.index_select.default(x, 1, m.table[0]),
    "index.Tensor": lambda m, x: aten.index.Tensor(x, [None, m.table]),
    "repeat.default": lambda _, x: aten.repeat.default(x, [1, 2, 3, 1]),
    "repeat in a new dimension": lambda _, x: aten.select.int(aten.repeat.default(x, [2, 1, 2, 1, 1]), 0, 1),
    "roll.default": lambda _, x: aten.roll.default(x, [-2, 3], [2, -1]),
    "constant_pad_nd.default": lambda _, x: aten.constant_pad_nd.default(x, [1, 0, 2, 3], 0.5),
    "pads": lambda _, x: aten.pad.default(
        aten.pad.default(aten.pad.default(x, [1, 2, 0, 0], "reflect"), [0, 0]), [0, 1, 2, 0], "replicate"
    ),
    "pixel_shuffle.default": lambda _, x: aten.pixel_shuffle.default(x, 2),
    "upsample_nearest2d.vec": lambda _, x: aten.upsample_nearest2d.vec(x, [9, 20], None),
    "upsample_nearest2d.default": lambda _, x: aten.upsample_nearest2d.default(x, [12, 16], 2.0, 2.0),
    "upsample_bilinear2d.vec": lambda _, x: aten.upsample_bilinear2d.vec(x, None, False, [2.0, 1.5]),
    "upsample_bilinear2d.default": lambda _, x: aten.upsample_bilinear2d.default(x, [9, 5], True),
    "casts": lambda _, x: aten._to_copy.default(aten.to.dtype(aten.to.dtype(x, torch.int64), torch.float32), dtype=torch.float32),
    "more casts": lambda _, x: aten.to.device(aten.to.dtype_layout(x, dtype=torch.float32), "cpu", torch.float32),
    "dropout.default": lambda _, x: aten.dropout.default(x, 0.5, False),
    "in place": lambda _, x: aten.add_.Tensor(aten.relu_.default(aten.mul.Tensor(x, 2)), x),
    "read after it was changed": lambda _, x: (lambda y: aten.add.Tensor(aten.relu_.default(y), y))(aten.mul.Tensor(x, 2)),
    "whole numbers": lambda m, x: aten.add.Tensor(x, m.table[0, 0]),
    "lifted": lambda _, x: aten.lift_fresh_copy.default(aten.lift_fresh.default(x)),
    "windows": lambda _, x: aten.reshape.default(
        aten.permute.default(aten.view.default(x, [-1, 4, 2, 3, 2, 4]), [0, 2, 4, 1, 3, 5]), [-1, 4, 12]
    ),
}

OF_TOKENS: dict[str, Callable[[Calls, Tensor], Tensor]] = {
    "layer_norm.default": lambda m, x: aten.layer_norm.default(x, [8], m.matrix[0], m.matrix[1], 1e-3),
    "layer_norm without weights": lambda _, x: aten.layer_norm.default(x, [8]),
    "linear.default": lambda m, x: aten.linear.default(x, m.matrix, m.matrix[:, 0]),
    "linear without bias": lambda m, x: aten.linear.default(x, m.matrix),
    "linear of images": lambda m, x: aten.linear.default(aten.select.int(x, 1, 0), m.matrix, m.matrix[:, 0]),
    "products of constants": lambda m, x: aten.matmul.default(x, aten.t.default(m.matrix)),
    "addmm.default": lambda m, x: aten.addmm.default(m.matrix[:, 0], aten.select.int(x, 1, 0), aten.t.default(m.matrix), beta=2, alpha=3),
    "mm.default": lambda m, x: aten.mm.default(aten.select.int(x, 1, 0), aten.t.default(m.matrix)),
    "bmm.default": lambda _, x: aten.bmm.default(x, aten.transpose.int(x, -1, 1)),
    "einsum.default": lambda m, x: aten.einsum.default("btd, od -> bto", [x, m.matrix]),
    "class token": lambda m, x: aten.cat.default([aten.expand.default(m.token, [aten.sym_size.int(x, 0), -1, -1]), x], 1),
    "class token by its shape": lambda m, x: aten.cat.default([aten.expand.default(m.token, [x.shape[0], -1, x.shape[-1]]), x], 1),
    "class token by the batch": lambda m, x: aten.expand.default(m.token, [2 * batch.batch_size(x) // 2, 3, -1]),
    "shapes of others": lambda _, x: aten.reshape_as.default(aten.view_as.default(aten.flatten.using_ints(x, 1), x), x),
    "a changed constant": lambda m, x: (lambda y: aten.mul.Tensor(x, aten.add.Tensor(aten.relu_.default(y), y)))(
        aten.mul.Scalar(m.token, 2)
    ),
    "expand_as.default": lambda m, x: aten.expand_as.default(m.token, x),
    "embedding.default": lambda m, x: aten.add.Tensor(x, aten.select.int(aten.embedding.default(m.matrix, m.table.abs()), 0, 0)[:1]),
    "a computed table": lambda m, x: aten.mul.Tensor(x, aten.masked_fill.Scalar(x, m.mask.float().sum(1, keepdim=True).bool(), 2.0)),
    "conditions": lambda m, x: aten.where.self(
        aten.bitwise_not.default(aten.to.dtype(aten.relu.default(x), torch.bool)),
        x,
        aten.masked_fill.Scalar(x, aten.logical_not.default(aten.to.dtype(x, torch.bool)), 1.0),
    ),
    "attention": lambda _, x: aten.scaled_dot_product_attention.default(heads(x), heads(x), heads(x)),
    "masked attention": lambda m, x: aten.scaled_dot_product_attention.default(
        heads(x), heads(x), heads(x), aten.to.dtype(m.mask, torch.float32), scale=0.3
    ),
    "attention by true and false": lambda m, x: aten.scaled_dot_product_attention.default(heads(x), heads(x), heads(x), m.mask),
    "attention to constants": lambda m, x: aten.scaled_dot_product_attention.default(x, m.matrix[None], m.matrix[None]),
}

NOT_BY_IMAGE = [OF_IMAGES[name] for name in ("mean.default", "sum.default", "squeeze.default", "numpy_T.default")]


def check(compute: Callable[[Calls, Tensor], Tensor], shape: tuple[int, ...], opset: int) -> None:
    network = Calls(compute).eval()
    model = to_model(network, (1, *shape), dynamic_batch=True, opset=opset)
    assert model.producer_name == "ofa"
    assert compute in NOT_BY_IMAGE or model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = network(x.clone())
        (actual,) = session.run(None, {"images": x.numpy()})
        assert actual.shape == expected.shape
        assert math.isclose((torch.from_numpy(actual) - expected).abs().max().item(), 0, abs_tol=2e-5 * max(1, expected.abs().max().item()))


@pytest.mark.parametrize("opset", [OPSET, NEWEST_OPSET])
@pytest.mark.parametrize(("calls", "shape"), [(OF_IMAGES, IMAGES), (OF_TOKENS, TOKENS)], ids=["images", "tokens"])
def test_calls_compute_the_same_with_any_number_of_images(calls, shape, opset):
    for name, compute in calls.items():
        try:
            check(compute, shape, opset)
        except Exception as error:
            error.add_note(name)
            raise


class Block(nn.Module):
    """As blocks of adopted networks are: modules of their own, calls, and loose tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.layer_norm = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LayerNorm(8)
        self.linear, self.scale = TokenLinear(8, 8), nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = aten.relu.default(self.norm(self.conv(x)))
        tokens = aten.permute.default(y, [0, 2, 3, 1])
        mixed = aten.mul.Tensor(self.linear(self.layer_norm(tokens)), self.scale)
        return aten.add.Tensor(aten.add.Tensor(tokens, mixed), self.scale)


def test_a_block_of_modules_and_calls_folds_its_norm_and_writes_shared_tensors_once() -> None:
    network = with_statistics(Block()).eval()
    model = to_model(network, (2, *IMAGES))
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [each.name for each in model.graph.initializer].count("scale") == 1
    x = torch.randn(2, *IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(run(model, x), network(x), rtol=1e-4, atol=1e-5)


def test_a_value_whose_view_is_overwritten_is_not_written_as_it_was() -> None:
    def overwrite(_: Calls, x: Tensor) -> Tensor:
        y = aten.mul.Tensor(x, 2)
        part = aten.relu_.default(aten.select.int(y, 1, 0))
        return aten.add.Tensor(y, aten.unsqueeze.default(part, 1))

    with pytest.raises(ExportError, match="relu_"):
        to_model(Calls(overwrite), (2, *IMAGES))


def test_every_handler_has_a_test() -> None:
    called: set[str] = set()
    for compute in (*OF_IMAGES.values(), *OF_TOKENS.values()):
        graph = fx.symbolic_trace(Calls(compute)).graph
        called.update(str(node.target).removeprefix("aten.") for node in graph.nodes if node.op == "call_function")
    assert not ATEN.keys() - called


def cumulated(_: Calls, x: Tensor) -> Tensor:
    return aten.mean.dim(aten.cumsum.default(x, 1), [2, 3])


def test_without_the_extra_an_unknown_operation_is_named_with_what_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa.exporting.torch_export.find_spec", lambda _: None)
    with pytest.raises(ExportError, match=r"aten\.cumsum\.default.*pip install 'ofa-nas\[export\]'"):
        to_model(Calls(cumulated), (2, *IMAGES))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's exporter, of torch's own classes
@pytest.mark.parametrize("opset", [OPSET, NEWEST_OPSET])
def test_torch_writes_what_the_project_cannot(opset: int) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    network = Calls(cumulated).train()
    model = to_model(network, (1, *IMAGES), metadata={"arch": "any"}, dynamic_batch=True, opset=opset)
    assert (model.producer_name, model.opset_import[0].version) == ("pytorch", opset)
    assert {each.key: each.value for each in model.metadata_props} == {"arch": "any"}
    assert (model.graph.input[0].name, [each.name for each in model.graph.output]) == ("images", ["logits"])
    assert network.training
    assert b"test_aten.py" not in model.SerializeToString()
    for count in (1, 3):
        x = torch.randn(count, *IMAGES)
        torch.testing.assert_close(run(model, x), network(x).detach(), rtol=1e-4, atol=1e-5)
