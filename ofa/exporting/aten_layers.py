"""ONNX export of ``torch.ops.aten`` calls of layers: pooling, convolutions, norms, linear layers and attention.

Shapes: B batch, C channels, H W pixels, T tokens of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ofa.exporting.aten_shapes import AtenHandler, shape_of, transposed
from ofa.exporting.graph import Array, Call, GraphWriter, Value, require
from ofa.exporting.operators import layer_norm

__all__ = ["LAYERS"]

# -- windows of pixels -------------------------------------------------------------------------------------------------


def _sides(value: int | Sequence[int], count: int = 2) -> list[int]:
    given = [value] if isinstance(value, int) else list(value)
    return given * (count // len(given))


def _max_pool(writer: GraphWriter, call: Call) -> str:
    x, kernel, stride, padding, dilation, ceil = call.arguments
    return writer.put(
        "MaxPool",
        call,
        x,
        kernel_shape=_sides(kernel),
        strides=_sides(stride or kernel),
        pads=_sides(padding) * 2,
        dilations=_sides(dilation),
        ceil_mode=int(ceil),
    )


def _avg_pool(writer: GraphWriter, call: Call) -> str:
    x, kernel, stride, padding, ceil, count, divisor = call.arguments
    require(divisor is None, call, "an exported average pool must divide by the size of its window")
    return writer.put(
        "AveragePool",
        call,
        x,
        kernel_shape=_sides(kernel),
        strides=_sides(stride or kernel),
        pads=_sides(padding) * 2,
        ceil_mode=int(ceil),
        count_include_pad=int(count),
    )


def _adaptive_avg_pool(writer: GraphWriter, call: Call) -> str:
    x, wanted = call.arguments
    if set(wanted) == {1}:
        return writer.put("GlobalAveragePool", call, x)
    sides = [side or 0 for side in x.shape[-len(wanted) :]]
    require(all(sides), call, "an exported adaptive average pool must know the size of its input")
    if all(side % size == 0 for side, size in zip(sides, wanted, strict=True)):
        kernel = [side // size for side, size in zip(sides, wanted, strict=True)]
        return writer.put("AveragePool", call, x, kernel_shape=kernel, strides=kernel)
    # Overlapping windows: averaging along each side is a matrix product.
    along = writer.constant(f"means.{sides[-1]}.{wanted[-1]}.along", _means(sides[-1], wanted[-1]).T)
    if len(wanted) == 1:
        return writer.put("MatMul", call, x, along)
    down = writer.constant(f"means.{sides[0]}.{wanted[0]}", _means(sides[0], wanted[0]))
    return writer.put("MatMul", call, down, writer.put("MatMul", call, x, along, step="along"))


def _means(side: int, size: int) -> Array:
    """Averaging matrix [size, side] of an adaptive average pool, with the windows that torch chooses."""
    means = np.zeros((size, side), dtype=np.float32)
    for number in range(size):
        begin, end = number * side // size, -(-(number + 1) * side // size)
        means[number, begin:end] = 1 / (end - begin)
    return means


def _convolution(writer: GraphWriter, call: Call) -> str:
    x, weight, bias, stride, padding, dilation, *transposition, groups = call.arguments
    require(not any(transposition[:1]), call, "an exported convolution must not be transposed")
    kernel = [size or 0 for size in weight.shape[2:]]
    dilations = _sides(dilation, len(kernel))
    if isinstance(padding, str):
        total = [step * (size - 1) if padding == "same" else 0 for step, size in zip(dilations, kernel, strict=True)]
        pads = [*(each // 2 for each in total), *(each - each // 2 for each in total)]
    else:
        pads = _sides(padding, len(kernel)) * 2
    return writer.put(
        "Conv",
        call,
        x,
        weight,
        *([] if bias is None else [bias]),
        kernel_shape=kernel,
        strides=_sides(stride, len(kernel)),
        pads=pads,
        dilations=dilations,
        group=groups,
    )


# -- norms -------------------------------------------------------------------------------------------------------------


def _filled(writer: GraphWriter, given: Value | None, size: int, number: float) -> str:
    """The name of a scale or shift; if none is given, of a constant with the same number for every channel."""
    if given is not None:
        return writer.value(given)
    return writer.constant(f"filled.{number!r}.{size}", np.full(size, number, dtype=np.float32))


def _batch_norm(writer: GraphWriter, call: Call) -> str:
    x, scale, shift, mean, variance, training, _, eps, _ = call.arguments
    require(mean is not None and not training, call, "an exported batch norm must have running statistics")
    channels = mean.shape[0]
    weights = _filled(writer, scale, channels, 1.0), _filled(writer, shift, channels, 0.0)
    return writer.put("BatchNormalization", call, x, *weights, mean, variance, epsilon=eps)


def _layer_norm(writer: GraphWriter, call: Call) -> str:
    x, shape, scale, shift, eps, _ = call.arguments
    if scale is None or shift is None:
        require(len(shape) == 1, call, "an exported layer norm without weights must be over the channels alone")
    inputs = (writer.value(x), _filled(writer, scale, shape[0], 1.0), _filled(writer, shift, shape[0], 0.0))
    return layer_norm(writer, replace(call, inputs=inputs), eps, len(shape))


def _of_channels(writer: GraphWriter, call: Call, weight: Value, rank: int, step: str) -> str:
    """The name of a weight of shape [C] that is multiplied with or added to values [B, C, ...]."""
    shape = (-1, *[1] * (rank - 2))
    if weight.constant is not None:
        return writer.value(weight.derived(f"raised{rank}", weight.constant.reshape(shape)))
    return writer.put("Reshape", call, weight, writer.sizes(*shape), step=step)


def _group_norm(writer: GraphWriter, call: Call) -> str:
    x, groups, scale, shift, eps, _ = call.arguments
    ones, zeros = _filled(writer, None, groups, 1.0), _filled(writer, None, groups, 0.0)
    rows = writer.put("Reshape", call, x, writer.sizes(0, groups, -1), step="rows")
    normalized = writer.put("InstanceNormalization", call, rows, ones, zeros, step="normalized", epsilon=eps)
    result = writer.put("Reshape", call, normalized, shape_of(writer, call, x), step="whole")
    rank = len(x.shape)
    if scale is not None:
        result = writer.put("Mul", call, result, _of_channels(writer, call, scale, rank, "scale"), step="scaled")
    if shift is not None:
        result = writer.put("Add", call, result, _of_channels(writer, call, shift, rank, "shift"), step="shifted")
    return result


# -- products ----------------------------------------------------------------------------------------------------------


def _matmul(writer: GraphWriter, call: Call) -> str:
    return writer.put("MatMul", call, *call.arguments[:2])


def _linear(writer: GraphWriter, call: Call) -> str:
    x, weight, bias = call.arguments
    if len(x.shape) == 2:
        return writer.put("Gemm", call, x, weight, *([] if bias is None else [bias]), transB=1)
    matrix = transposed(writer, call, weight, "transposed")
    if bias is None:
        return writer.put("MatMul", call, x, matrix)
    return writer.put("Add", call, writer.put("MatMul", call, x, matrix, step="product"), bias)


def _addmm(writer: GraphWriter, call: Call) -> str:
    bias, x, matrix, beta, alpha = call.arguments
    return writer.put("Gemm", call, x, matrix, bias, alpha=float(alpha), beta=float(beta))


def _einsum(writer: GraphWriter, call: Call) -> str:
    equation, tensors = call.arguments[:2]
    return writer.put("Einsum", call, *tensors, equation=equation)


def _attention(writer: GraphWriter, call: Call) -> str:
    query, key, value, mask, dropout, causal, scale, grouped = call.arguments
    require(not (dropout or causal or grouped), call, "exported attention must be without dropout, causal mask and groups of heads")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    products = writer.put("MatMul", call, query, transposed(writer, call, key, "keys"), step="products")
    scores = writer.put("Mul", call, products, factor, step="scores")
    if mask is not None:
        scores = writer.put("Add", call, scores, _additive(call, mask), step="masked")
    return writer.put("MatMul", call, writer.put("Softmax", call, scores, step="shares", axis=-1), value)


def _additive(call: Call, mask: Value) -> Value:
    if mask.dtype is not torch.bool:
        return mask
    require(mask.constant is not None, call, "an exported mask of true and false must not depend on the input")
    assert mask.constant is not None
    added: Tensor = torch.zeros_like(mask.constant, dtype=torch.float32).masked_fill(~mask.constant, -math.inf)
    return mask.derived("added", added)


LAYERS: Mapping[AtenHandler, str] = {
    _adaptive_avg_pool: "adaptive_avg_pool2d.default adaptive_avg_pool1d.default",
    _addmm: "addmm.default",
    _attention: "scaled_dot_product_attention.default",
    _avg_pool: "avg_pool2d.default",
    _batch_norm: "batch_norm.default",
    _convolution: "conv1d.default conv2d.default conv1d.padding conv2d.padding convolution.default",
    _einsum: "einsum.default",
    _group_norm: "group_norm.default",
    _layer_norm: "layer_norm.default",
    _linear: "linear.default",
    _matmul: "matmul.default mm.default bmm.default",
    _max_pool: "max_pool2d.default",
}
"""The overloads of each handler, separated by spaces."""
