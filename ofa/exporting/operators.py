"""One ONNX operator for each operation that networks of this project are made of.

The set is closed on purpose: a network is a list of blocks and a block builds only these modules, so a table of short
handlers replaces a general exporter, and an operation that is not in the table is an error that names it.

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ofa.errors import ExportError

__all__ = ["FUNCTIONS", "MODULES", "Call", "GraphWriter", "array", "handler_of"]

Array = np.ndarray[Any, np.dtype[np.float32]]


class GraphWriter:
    """Writes nodes and constants into an ONNX graph, where they stay: weights are copied no more often than that."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self._constants: set[str] = set()

    def constant(self, name: str, value: Array) -> str:
        """Write ``value`` under ``name``, unless a module that is called twice has already written it; return the name."""
        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.add(
                name=name, data_type=TensorProto.FLOAT, dims=value.shape, raw_data=value.astype("<f4", copy=False).tobytes()
            )
        return name

    def add(self, kind: str, call: Call, constants: Sequence[str] = (), **attributes: Any) -> str:
        """Append the operator ``kind`` that reads the inputs of ``call`` and then ``constants``; return the name of its output."""
        self.graph.node.append(helper.make_node(kind, [*call.inputs, *constants], [call.name], name=call.name, **attributes))
        return call.name


@dataclass(frozen=True)
class Call:
    """One call of a module or function in the traced network.

    Attributes:
        name: unique in the graph; also the name of the value that the call makes.
        inputs: names of the values it reads.
        place: path of the module in the network, such as ``stages.2.1.conv``; for a function, its name.
        module: the module, or None for a function.
        batch_norm: the batch norm that is folded into this convolution, if there is one.
    """

    name: str
    inputs: tuple[str, ...]
    place: str
    module: Any = None
    batch_norm: nn.BatchNorm2d | None = None


Handler = Callable[[GraphWriter, Call], str]
"""Writes one call and returns the name of the value that holds its result."""


def handler_of(module: nn.Module) -> Handler | None:
    """The handler of ``module``, or None if its computation is not one of the closed set.

    A parametrized module is its own subclass with the inherited ``forward``, so it is found by its base; a subclass that
    computes something else is not.
    """
    for kind, handler in MODULES.items():
        if isinstance(module, kind):
            return handler if type(module).forward is kind.forward else None
    return None


def array(tensor: torch.Tensor) -> Array:
    """``tensor`` as a contiguous float32 array on the CPU, whatever view, device or memory format it has."""
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _require(holds: bool, call: Call, rule: str) -> None:
    if not holds:
        what = f"'{call.place}'" if call.module is None else f"'{call.place}' is {call.module}"
        raise ExportError(f"{rule}, but {what}; build that part of the network in another way")


def _statistics(module: nn.BatchNorm2d, call: Call) -> tuple[torch.Tensor, ...]:
    """Scale, shift, mean and variance of a batch norm, each of shape [C]."""
    _require(module.running_mean is not None, call, "an exported batch norm must have running statistics")
    mean, variance = module.running_mean, module.running_var
    assert mean is not None
    assert variance is not None
    scale = torch.ones_like(mean) if module.weight is None else module.weight
    shift = torch.zeros_like(mean) if module.bias is None else module.bias
    return scale, shift, mean, variance


def _conv(writer: GraphWriter, call: Call) -> str:
    module: nn.Conv2d = call.module
    _require(
        module.padding_mode == "zeros" and not isinstance(module.padding, str),
        call,
        "an exported convolution must be padded by numbers of zeros",
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
        pads=_pair(module.padding) * 2,  # type: ignore[arg-type]
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
    _require(module.divisor_override is None, call, "an exported average pool must divide by the size of its window")
    return writer.add(
        "AveragePool",
        call,
        kernel_shape=_pair(module.kernel_size),
        strides=_pair(module.stride),
        pads=_pair(module.padding) * 2,
        ceil_mode=int(module.ceil_mode),
        count_include_pad=int(module.count_include_pad),
    )


def _max_pool(writer: GraphWriter, call: Call) -> str:
    module: nn.MaxPool2d = call.module
    _require(not module.return_indices, call, "an exported max pool must return values only")
    return writer.add(
        "MaxPool",
        call,
        kernel_shape=_pair(module.kernel_size),
        strides=_pair(module.stride),
        pads=_pair(module.padding) * 2,
        dilations=_pair(module.dilation),
        ceil_mode=int(module.ceil_mode),
    )


def _global_avg_pool(writer: GraphWriter, call: Call) -> str:
    _require(call.module.output_size in (1, (1, 1)), call, "an exported adaptive average pool must be global, with output size 1")
    return writer.add("GlobalAveragePool", call)


def _flatten(writer: GraphWriter, call: Call) -> str:
    _require(
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


def _binary(kind: str) -> Handler:
    def write(writer: GraphWriter, call: Call) -> str:
        _require(len(call.inputs) == 2, call, "an exported sum or product must be of two values of the network")
        return writer.add(kind, call)

    return write


MODULES: Mapping[type[nn.Module], Handler] = {
    nn.AdaptiveAvgPool2d: _global_avg_pool,
    nn.AvgPool2d: _avg_pool,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _conv,
    nn.Dropout: _nothing,
    nn.Flatten: _flatten,
    nn.Hardsigmoid: _hardsigmoid,
    nn.Hardswish: _hardswish,
    nn.Identity: _nothing,
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
