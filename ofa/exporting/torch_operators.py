"""ONNX operators computed by torch, so that gradients flow through an exported network. It has the operators of ofa's exporter and opset.

Shapes: B images, C channels; ``...`` any further dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

__all__ = ["TORCH_OPERATORS", "Operator"]

Operator = Callable[..., "Tensor | tuple[Tensor, ...]"]
"""Takes a node's inputs (None for an omitted one) and, as keywords, its attributes."""

_TYPES: Mapping[int, torch.dtype] = {TensorProto.FLOAT: torch.float32, TensorProto.INT64: torch.int64, TensorProto.BOOL: torch.bool}
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _numbers(value: Tensor | list[int]) -> list[int]:
    """A list of integers from an attribute or an input of a node."""
    return [int(each) for each in (value.flatten().tolist() if isinstance(value, Tensor) else value)]


def _padded(x: Tensor, pads: list[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """``x`` and the symmetric padding of each side that is left for torch; asymmetric padding is applied to ``x`` here."""
    sides = len(pads) // 2
    if pads[:sides] == pads[sides:]:
        return x, pads[:sides]
    return F.pad(x, _of_torch(pads), value=value), [0] * sides


def _of_torch(pads: list[int]) -> list[int]:
    """ONNX pads in torch's order: before and after each dimension, from the last dimension to the first."""
    rank = len(pads) // 2
    return [size for axis in reversed(range(rank)) for size in (pads[axis], pads[rank + axis])]


# -- layers ------------------------------------------------------------------------------------------------------------


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: int = 1, **how: Any) -> Tensor:
    sides = weight.ndim - 2
    x, padding = _padded(x, how.get("pads", [0] * 2 * sides))
    stride, dilation = (how.get(name, [1] * sides) for name in ("strides", "dilations"))
    return _CONVOLUTIONS[sides](x, weight, bias, stride, padding, dilation, group)


def _gemm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Tensor:
    product = alpha * ((x.mT if transA else x) @ (weight.mT if transB else weight))
    return product if bias is None else product + beta * bias


def _max_pool(x: Tensor, *, kernel_shape: list[int], ceil_mode: int = 0, **how: Any) -> Tensor:
    sides = len(kernel_shape)
    x, padding = _padded(x, how.get("pads", [0] * 2 * sides), -math.inf)
    stride, dilation = (how.get(name, [1] * sides) for name in ("strides", "dilations"))
    return F.max_pool2d(x, kernel_shape, stride, padding, dilation, bool(ceil_mode))


def _average_pool(x: Tensor, *, kernel_shape: list[int], ceil_mode: int = 0, count_include_pad: int = 0, **how: Any) -> Tensor:
    padding = how.get("pads", [0] * 2 * len(kernel_shape))[: len(kernel_shape)]
    stride = how.get("strides", [1] * len(kernel_shape))
    return F.avg_pool2d(x, kernel_shape, stride, padding, bool(ceil_mode), bool(count_include_pad))


def _batch_norm(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5, **_: Any) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, shift, eps=epsilon)


def _instance_norm(x: Tensor, scale: Tensor, shift: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=shift, eps=epsilon)


def _layer_norm(x: Tensor, scale: Tensor, shift: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> Tensor:
    return F.layer_norm(x, x.shape[axis:], scale, shift, epsilon)


# -- values ------------------------------------------------------------------------------------------------------------


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return torch.clamp(x, None if low is None else float(low), None if high is None else float(high))


def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _div(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _cast(x: Tensor, *, to: int) -> Tensor:
    return x.to(_TYPES[to])


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.softmax(axis)


def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.log_softmax(axis)


def _reduction(reduce: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def compute(x: Tensor, given: Tensor | None = None, *, axes: list[int] | None = None, keepdims: int = 1) -> Tensor:
        wanted = axes if given is None else _numbers(given)
        return reduce(x, list(range(x.ndim)) if wanted is None else wanted, bool(keepdims))

    return compute


def _norm(order: int) -> Callable[[Tensor, list[int], bool], Tensor]:
    return lambda x, axes, keep: torch.linalg.vector_norm(x, order, axes, keep)


# -- shapes ------------------------------------------------------------------------------------------------------------


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(_numbers(shape))])


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(x: Tensor, *, perm: list[int]) -> Tensor:
    return x.permute(perm)


def _squeeze(x: Tensor, axes: Tensor) -> Tensor:
    return x.squeeze(_numbers(axes))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(_numbers(axes)):
        x = x.unsqueeze(axis)
    return x


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, _numbers(shape)))


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _split(x: Tensor, sizes: Tensor, *, axis: int = 0) -> tuple[Tensor, ...]:
    return torch.split(x, _numbers(sizes), axis)


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, every = list(range(len(starts))), [1] * len(starts)
    given = starts, ends, first if axes is None else axes, every if steps is None else steps
    for start, end, axis, step in zip(*map(_numbers, given), strict=True):
        x = x[(*[slice(None)] * (axis % x.ndim), slice(start, end, step))]
    return x


def _gather(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.ndim
    found = x.index_select(axis, index.flatten() % x.shape[axis])
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _pad(x: Tensor, pads: Tensor, value: Tensor | None = None, *, mode: str = "constant") -> Tensor:
    sizes = _of_torch(_numbers(pads))
    if mode == "constant":
        return F.pad(x, sizes, value=0.0 if value is None else float(value))
    # torch reflects and replicates only along spatial dimensions, and takes the pads of all of them.
    return F.pad(x, sizes[: 2 * (x.ndim - 2)], mode="replicate" if mode == "edge" else mode)


def _resize(x: Tensor, _: Any, __: Any, sizes: Tensor, *, mode: str, coordinate_transformation_mode: str, **___: Any) -> Tensor:
    size = _numbers(sizes)[2:]
    if mode == "nearest":
        return F.interpolate(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=coordinate_transformation_mode == "align_corners")


def _shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape)


TORCH_OPERATORS: Mapping[str, Operator] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DepthToSpace": lambda x, *, blocksize, **_: F.pixel_shuffle(x, blocksize),
    "Div": _div,
    "Einsum": lambda *inputs, equation: torch.einsum(equation, *inputs),
    "Elu": lambda x, *, alpha=1.0: F.elu(x, alpha),
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, *, alpha=0.01: F.leaky_relu(x, alpha),
    "Log": torch.log,
    "LogSoftmax": _log_softmax,
    "MatMul": torch.matmul,
    "MaxPool": _max_pool,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Pad": _pad,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "ReduceL1": _reduction(_norm(1)),
    "ReduceL2": _reduction(_norm(2)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Resize": _resize,
    "Selu": F.selu,
    "Shape": _shape,
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": F.softplus,
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": _squeeze,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Tile": lambda x, counts: x.tile(_numbers(counts)),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": torch.where,
}
"""The torch function of each type of operator."""
