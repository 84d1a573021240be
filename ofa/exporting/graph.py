"""The writer of an ONNX graph, and the traced calls that it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from ofa.errors import ExportError

__all__ = ["Call", "GraphWriter", "Handler", "Kind", "Operand", "Shape", "UnknownOperationError", "Value", "array", "pair", "require"]

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int | None, ...]
"""Shape of a value; None for a size that depends on the batch size if the batch size is open."""

_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64, np.dtype(np.bool_): TensorProto.BOOL}


class UnknownOperationError(ExportError):
    """An operation that no handler writes."""


class GraphWriter:
    """Writes nodes and constants into an ONNX graph in place, so that weights are copied only once.

    Args:
        graph: the graph to fill.
        opset: ONNX opset version; some operators differ between versions.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self._constants: set[str] = set()

    def constant(self, name: str, value: Array) -> str:
        """Write ``value`` under ``name`` unless it is written already (a module may be called twice); return the name."""
        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.add(
                name=name,
                data_type=_TYPES[value.dtype],
                dims=value.shape,
                raw_data=value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes(),
            )
        return name

    def number(self, value: float) -> str:
        """Write a number, once for all calls; return its name."""
        return self.constant(f"number.{value!r}", np.array(value, dtype=np.float32))

    def value(self, value: Value) -> str:
        """The name of a value; a constant is written first."""
        return value.name if value.constant is None else self.constant(value.name, array(value.constant))

    def sizes(self, *values: int) -> str:
        """Write integers, such as a shape that is an operator's input, once for all calls; return their name."""
        name = f"sizes.{'.'.join(map(str, values))}"
        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.add(name=name, data_type=TensorProto.INT64, dims=(len(values),), int64_data=values)
        return name

    def put(self, kind: str, call: Call, *operands: Operand, step: str = "", **attributes: Any) -> str:
        """Append an operator; return the name of its output.

        Args:
            kind: type of the operator.
            call: the call that the operator belongs to.
            operands: inputs: values, names, numbers, or None for an omitted input.
            step: name of an intermediate value; empty if the output is the call's result.
            attributes: attributes of the operator.
        """
        names = tuple(self._operand(each) for each in operands)
        return self.step(kind, call, step, names, **attributes) if step else self.add(kind, replace(call, inputs=names), **attributes)

    def parts(self, kind: str, call: Call, count: int, *operands: Operand, **attributes: Any) -> tuple[str, ...]:
        """Append an operator with several outputs, as ``put`` does; return their names."""
        names = tuple(f"{call.name}.{number}" for number in range(count))
        self.graph.node.append(helper.make_node(kind, [self._operand(each) for each in operands], names, name=call.name, **attributes))
        return names

    def _operand(self, operand: Operand) -> str:
        if operand is None:
            return ""  # ONNX's way to omit an input
        if isinstance(operand, Value):
            return self.value(operand)
        return operand if isinstance(operand, str) else self.number(float(operand))

    def step(self, kind: str, call: Call, step: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append an operator that computes an intermediate value of ``call``; return its name."""
        return self.add(kind, Call(f"{call.name}.{step}", tuple(inputs), call.place), **attributes)

    def add(self, kind: str, call: Call, constants: Sequence[str] = (), **attributes: Any) -> str:
        """Append the operator ``kind`` that reads the inputs of ``call`` and then ``constants``; return the name of its output."""
        self.graph.node.append(helper.make_node(kind, [*call.inputs, *constants], [call.name], name=call.name, **attributes))
        return call.name


@dataclass(frozen=True)
class Kind:
    """Shape and data type of a value."""

    shape: Shape
    dtype: torch.dtype


@dataclass(frozen=True)
class Value:
    """A tensor that a call reads.

    Attributes:
        name: name in the graph; a constant is written when it is first read.
        measure: finds shape and data type, which takes a run of the network with fake tensors.
        constant: the tensor itself if it does not depend on the network's input.
    """

    name: str
    measure: Callable[[], Kind]
    constant: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """Shape of the value."""
        return self.measure().shape

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the value."""
        return self.measure().dtype

    def derived(self, name: str, constant: Tensor) -> Value:
        """A constant computed from this one; its name is this one's name, a dot and ``name``."""
        return Value(f"{self.name}.{name}", lambda: Kind(tuple(constant.shape), constant.dtype), constant)


@dataclass(frozen=True)
class Call:
    """One call of a module or function in the traced network.

    Attributes:
        name: name of the call and of its result, unique in the graph.
        inputs: names of the values that it reads.
        place: path of the module in the network, such as ``stages.2.1.conv``; for a function, its name.
        module: the module; None for a function.
        batch_norm: the batch norm that is folded into this convolution; None if there is none.
        arguments: arguments in the order of the signature, including defaults: a Value for each tensor, constants otherwise, and lists
            of these.
    """

    name: str
    inputs: tuple[str, ...]
    place: str
    module: Any = None
    batch_norm: nn.BatchNorm2d | None = None
    arguments: tuple[Any, ...] = ()


Operand = Value | str | float | None
"""An operator's input: a value, a name in the graph, a number, or None for an omitted optional input."""

Handler = Callable[[GraphWriter, Call], str]
"""Writes one call, and returns the name of its result."""


def array(tensor: torch.Tensor) -> Array:
    """A tensor as a contiguous float32, int64 or bool array on the CPU, whatever its strides, device or memory format."""
    kind = torch.float32 if tensor.is_floating_point() else torch.bool if tensor.dtype is torch.bool else torch.int64
    return np.asarray(tensor.detach().to("cpu", kind).contiguous().numpy())


def pair(value: int | Sequence[int]) -> list[int]:
    """Two sizes, one for each side; a single number stands for both."""
    return [value, value] if isinstance(value, int) else list(value)


def require(holds: bool, call: Call, rule: str) -> None:
    """Raise UnknownOperationError, with the rule and the call that breaks it, unless ``holds``."""
    if not holds:
        what = f"'{call.place}'" if call.module is None else f"'{call.place}' is {call.module}"
        raise UnknownOperationError(f"{rule}, but {what}; build that part of the network in another way")
