"""ONNX export of the modules and functions that ofa's networks are built from.

The set is closed on purpose: a network is a list of blocks, and a block builds only these modules. So a table of short handlers replaces
a general exporter, and an operation that is not in the table is an error that names it.

Shapes: B batch, C channels, H W pixels, T tokens of D channels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ofa.blocks.token_modules import AddPositions, DotProductAttention, TokenLinear, TokenMean, Tokens
from ofa.exporting.graph import Call, GraphWriter, Handler, array, pair, require

__all__ = ["FUNCTIONS", "MODULES", "gelu", "handler_of", "layer_norm"]


def handler_of(module: nn.Module) -> Handler | None:
    """The handler of a module; None if its computation is not in the closed set.

    A subclass with the inherited ``forward`` (such as a parametrized module) has its base's handler; a subclass with another ``forward``
    has none.
    """
    for kind, handler in MODULES.items():
        if isinstance(module, kind):
            return handler if type(module).forward is kind.forward else None
    return None


def _statistics(module: nn.BatchNorm2d, call: Call) -> tuple[torch.Tensor, ...]:
    """Scale, shift, mean and variance of a batch norm, each of shape [C]."""
    require(module.running_mean is not None, call, "an exported batch norm must have running statistics")
    mean, variance = module.running_mean, module.running_var
    assert mean is not None
    assert variance is not None
    scale = torch.ones_like(mean) if module.weight is None else module.weight
    shift = torch.zeros_like(mean) if module.bias is None else module.bias
    return scale, shift, mean, variance


def _conv(writer: GraphWriter, call: Call) -> str:
    module: nn.Conv2d = call.module
    require(
        module.padding_mode == "zeros" and not isinstance(module.padding, str),
        call,
        "an exported convolution must have zero padding, given as numbers",
    )
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    if call.batch_norm is not None:
        scale, shift, mean, variance = _statistics(call.batch_norm, call)
        weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, call.batch_norm.eps, scale, shift)
    constants = [writer.constant(f"{call.place}.weight", array(weight))]
    if bias is not None:
        constants.append(writer.constant(f"{call.place}.bias", array(bias)))
    return writer.add(
        "Conv",
        call,
        constants,
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=pair(module.padding) * 2,  # type: ignore[arg-type]
        dilations=list(module.dilation),
        group=module.groups,
    )


def _batch_norm(writer: GraphWriter, call: Call) -> str:
    module: nn.BatchNorm2d = call.module
    values = zip(("weight", "bias", "running_mean", "running_var"), _statistics(module, call), strict=True)
    constants = [writer.constant(f"{call.place}.{name}", array(value)) for name, value in values]
    return writer.add("BatchNormalization", call, constants, epsilon=module.eps)


def _relu(writer: GraphWriter, call: Call) -> str:
    return writer.add("Relu", call)


def _relu6(writer: GraphWriter, call: Call) -> str:
    low = writer.constant("relu6.low", np.array(0, dtype=np.float32))
    high = writer.constant("relu6.high", np.array(6, dtype=np.float32))
    return writer.add("Clip", call, (low, high))


def _hardswish(writer: GraphWriter, call: Call) -> str:
    return writer.add("HardSwish", call)


def _hardsigmoid(writer: GraphWriter, call: Call) -> str:
    return writer.add("HardSigmoid", call, alpha=1 / 6, beta=0.5)


def _nothing(writer: GraphWriter, call: Call) -> str:
    return call.inputs[0]


def _avg_pool(writer: GraphWriter, call: Call) -> str:
    module: nn.AvgPool2d = call.module
    require(module.divisor_override is None, call, "an exported average pool must divide by the size of its window")
    return writer.add(
        "AveragePool",
        call,
        kernel_shape=pair(module.kernel_size),
        strides=pair(module.stride),
        pads=pair(module.padding) * 2,
        ceil_mode=int(module.ceil_mode),
        count_include_pad=int(module.count_include_pad),
    )


def _max_pool(writer: GraphWriter, call: Call) -> str:
    module: nn.MaxPool2d = call.module
    require(not module.return_indices, call, "an exported max pool must return values only")
    return writer.add(
        "MaxPool",
        call,
        kernel_shape=pair(module.kernel_size),
        strides=pair(module.stride),
        pads=pair(module.padding) * 2,
        dilations=pair(module.dilation),
        ceil_mode=int(module.ceil_mode),
    )


def _global_avg_pool(writer: GraphWriter, call: Call) -> str:
    require(call.module.output_size in (1, (1, 1)), call, "an exported adaptive average pool must be global, with output size 1")
    return writer.add("GlobalAveragePool", call)


def _flatten(writer: GraphWriter, call: Call) -> str:
    require(
        (call.module.start_dim, call.module.end_dim) == (1, -1),
        call,
        "an exported flatten must keep the batch and join all other dimensions",
    )
    return writer.add("Flatten", call, axis=1)


def _linear(writer: GraphWriter, call: Call) -> str:
    module: nn.Linear = call.module
    constants = [writer.constant(f"{call.place}.weight", array(module.weight))]
    if module.bias is not None:
        constants.append(writer.constant(f"{call.place}.bias", array(module.bias)))
    return writer.add("Gemm", call, constants, transB=1)


def _token_linear(writer: GraphWriter, call: Call) -> str:
    module: TokenLinear = call.module
    weight = writer.constant(f"{call.place}.weight", array(module.weight.T))
    if module.bias is None:
        return writer.add("MatMul", call, (weight,))
    product = writer.step("MatMul", call, "product", (*call.inputs, weight))
    return writer.add("Add", replace(call, inputs=(product,)), (writer.constant(f"{call.place}.bias", array(module.bias)),))


def _layer_norm(writer: GraphWriter, call: Call) -> str:
    module: nn.LayerNorm = call.module
    require(len(module.normalized_shape) == 1, call, "an exported layer norm must be over the channels alone")
    ones = torch.ones(module.normalized_shape)
    scale = writer.constant(f"{call.place}.weight", array(ones if module.weight is None else module.weight))
    shift = writer.constant(f"{call.place}.bias", array(ones * 0 if module.bias is None else module.bias))
    return layer_norm(writer, replace(call, inputs=(*call.inputs, scale, shift)), module.eps)


def layer_norm(writer: GraphWriter, call: Call, eps: float, dims: int = 1) -> str:
    """Write a layer norm over the last ``dims`` dimensions; the call's inputs are values, scale and shift."""
    if writer.opset >= 17:
        return writer.add("LayerNormalization", call, axis=-dims, epsilon=eps)
    axes = list(range(-dims, 0))
    # The usual decomposition, which ONNX Runtime, OpenVINO and TensorRT recognize and fuse into one operation.
    x, scale, shift = call.inputs
    mean = writer.step("ReduceMean", call, "mean", (x,), axes=axes, keepdims=1)
    centred = writer.step("Sub", call, "centred", (x, mean))
    squared = writer.step("Pow", call, "squared", (centred, writer.number(2.0)))
    variance = writer.step("ReduceMean", call, "variance", (squared,), axes=axes, keepdims=1)
    deviation = writer.step("Sqrt", call, "deviation", (writer.step("Add", call, "raised", (variance, writer.number(eps))),))
    scaled = writer.step("Mul", call, "scaled", (writer.step("Div", call, "normalized", (centred, deviation)), scale))
    return writer.add("Add", replace(call, inputs=(scaled, shift)))


def _gelu(writer: GraphWriter, call: Call) -> str:
    require(call.module.approximate == "none", call, "an exported GELU must be the exact one")
    return gelu(writer, call)


def gelu(writer: GraphWriter, call: Call) -> str:
    """Write the exact GELU of the call's input."""
    (x,) = call.inputs
    error = writer.step("Erf", call, "error", (writer.step("Div", call, "divided", (x, writer.number(math.sqrt(2)))),))
    share = writer.step("Add", call, "share", (error, writer.number(1.0)))
    return writer.add("Mul", replace(call, inputs=(writer.step("Mul", call, "doubled", (x, share)), writer.number(0.5))))


def _attention(writer: GraphWriter, call: Call) -> str:
    channels = call.module.head_channels
    query, key, value = (
        writer.step(
            "Transpose", call, f"{name}.heads", (writer.step("Reshape", call, name, (each, writer.sizes(0, 0, -1, channels))),), perm=order
        )
        for name, each, order in zip(("query", "key", "value"), call.inputs, ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True)
    )
    products = writer.step("MatMul", call, "products", (query, key))
    scores = writer.step("Mul", call, "scores", (products, writer.number(1 / math.sqrt(channels))))
    mixed = writer.step("MatMul", call, "mixed", (writer.step("Softmax", call, "shares", (scores,), axis=-1), value))
    tokens = writer.step("Transpose", call, "tokens", (mixed,), perm=(0, 2, 1, 3))
    return writer.add("Reshape", replace(call, inputs=(tokens, writer.sizes(0, 0, -1))))


def _add_positions(writer: GraphWriter, call: Call) -> str:
    return writer.add("Add", call, (writer.constant(f"{call.place}.weight", array(call.module.weight)),))


def _tokens(writer: GraphWriter, call: Call) -> str:
    rows = writer.step("Reshape", call, "rows", (*call.inputs, writer.sizes(0, 0, -1)))
    return writer.add("Transpose", replace(call, inputs=(rows,)), perm=(0, 2, 1))


def _token_mean(writer: GraphWriter, call: Call) -> str:
    if writer.opset >= 18:
        return writer.add("ReduceMean", call, (writer.sizes(1),), keepdims=0)
    return writer.add("ReduceMean", call, axes=[1], keepdims=0)


def _binary(kind: str) -> Handler:
    def write(writer: GraphWriter, call: Call) -> str:
        require(len(call.inputs) == 2, call, "an exported sum or product must be of two values of the network")
        return writer.add(kind, call)

    return write


MODULES: Mapping[type[nn.Module], Handler] = {
    AddPositions: _add_positions,
    DotProductAttention: _attention,
    TokenLinear: _token_linear,  # before its base class nn.Linear
    TokenMean: _token_mean,
    Tokens: _tokens,
    nn.AdaptiveAvgPool2d: _global_avg_pool,
    nn.AvgPool2d: _avg_pool,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _conv,
    nn.Dropout: _nothing,
    nn.Flatten: _flatten,
    nn.GELU: _gelu,
    nn.Hardsigmoid: _hardsigmoid,
    nn.Hardswish: _hardswish,
    nn.Identity: _nothing,
    nn.LayerNorm: _layer_norm,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
}
"""The handler of each module."""

FUNCTIONS: Mapping[Callable[..., Any], Handler] = {
    operator.add: _binary("Add"),
    operator.mul: _binary("Mul"),
    torch.add: _binary("Add"),
    torch.mul: _binary("Mul"),
}
"""The handler of each function."""
