"""An ONNX graph that is being written, and the calls that are written into it."""

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
"""Of a value; None for sizes that depend on the number of images where that is left open."""

_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64, np.dtype(np.bool_): TensorProto.BOOL}


class UnknownOperationError(ExportError):
    """An operation that no handler writes."""


class GraphWriter:
    """Writes nodes and constants into an ONNX graph, where they stay: weights are copied no more often than that.

    Args:
        graph: to be filled.
        opset: version of the operators, some of which have other forms in later ones.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self._constants: set[str] = set()

    def constant(self, name: str, value: Array) -> str:
        """Write ``value`` under ``name``, unless a module that is called twice has already written it; return the name."""
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
        """The name of a value, which is written now if it is a constant."""
        return value.name if value.constant is None else self.constant(value.name, array(value.constant))

    def sizes(self, *values: int) -> str:
        """Write whole numbers, such as the shape that an operator takes as an input, once for all calls; return their name."""
        name = f"sizes.{'.'.join(map(str, values))}"
        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.add(name=name, data_type=TensorProto.INT64, dims=(len(values),), int64_data=values)
        return name

    def put(self, kind: str, call: Call, *operands: Operand, step: str = "", **attributes: Any) -> str:
        """Append an operator that reads values, names, numbers or nothing (None); return its name.

        Args:
            kind: of the operator.
            call: whose result it is.
            operands: what it reads.
            step: names a value on the way to that result; empty for the result itself.
            attributes: of the operator.
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
            return ""  # an input that is left out
        if isinstance(operand, Value):
            return self.value(operand)
        return operand if isinstance(operand, str) else self.number(float(operand))

    def step(self, kind: str, call: Call, step: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append an operator that computes a value on the way to that of ``call``; return its name."""
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
        name: in the graph; a constant is written under it when it is first read there.
        measure: finds its kind, which takes a run of the network without numbers.
        constant: the tensor itself if the input has no part in it.
    """

    name: str
    measure: Callable[[], Kind]
    constant: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """Sizes of its dimensions."""
        return self.measure().shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of its numbers."""
        return self.measure().dtype

    def derived(self, name: str, constant: Tensor) -> Value:
        """A constant that follows from this one and is written under its name and ``name``."""
        return Value(f"{self.name}.{name}", lambda: Kind(tuple(constant.shape), constant.dtype), constant)


@dataclass(frozen=True)
class Call:
    """One call of a module or function in the traced network.

    Attributes:
        name: unique in the graph; also the name of the value that the call makes.
        inputs: names of the values it reads.
        place: path of the module in the network, such as ``stages.2.1.conv``; for a function, its name.
        module: the module, or None for a function.
        batch_norm: the batch norm that is folded into this convolution, if there is one.
        arguments: what it is called with, in the order of its signature and with the defaults: a Value for each tensor, constants
            otherwise, and lists of these.
    """

    name: str
    inputs: tuple[str, ...]
    place: str
    module: Any = None
    batch_norm: nn.BatchNorm2d | None = None
    arguments: tuple[Any, ...] = ()


Operand = Value | str | float | None
"""What an operator reads: a value, a name in the graph, a number, or nothing where an input may be left out."""

Handler = Callable[[GraphWriter, Call], str]
"""Writes one call and returns the name of the value that holds its result."""


def array(tensor: torch.Tensor) -> Array:
    """``tensor`` as a contiguous array on the CPU, whatever view, device or memory format it has: of float32, int64 or bool."""
    kind = torch.float32 if tensor.is_floating_point() else torch.bool if tensor.dtype is torch.bool else torch.int64
    return np.asarray(tensor.detach().to("cpu", kind).contiguous().numpy())


def pair(value: int | Sequence[int]) -> list[int]:
    """A size for each of both sides: one number is that of both."""
    return [value, value] if isinstance(value, int) else list(value)


def require(holds: bool, call: Call, rule: str) -> None:
    """Raise UnknownOperationError with ``rule`` and the call that breaks it unless it ``holds``."""
    if not holds:
        what = f"'{call.place}'" if call.module is None else f"'{call.place}' is {call.module}"
        raise UnknownOperationError(f"{rule}, but {what}; build that part of the network in another way")
