"""A traced model as a plain list of calls: no-ops are removed, and constants are folded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from ofa.adopting.tracing import Trace
from ofa.errors import SpaceError

__all__ = ["Call", "Program", "Ref", "TensorName", "simplify"]

_aten = torch.ops.aten
_NOTHING = {
    _aten.dropout.default,
    _aten.dropout_.default,
    _aten.feature_dropout.default,
    _aten.clone.default,
    _aten.alias.default,
    _aten.detach.default,
    _aten.lift_fresh_copy.default,
}
"""No-ops in evaluation mode, if nothing is written in place."""
_MAYBE_NOTHING = {_aten.pad.default, _aten.constant_pad_nd.default, _aten.slice.Tensor}
"""No-ops if the shape does not change: they pad or cut nothing."""
_LIKE = {
    *(_aten.new_zeros.default, _aten.new_ones.default, _aten.new_full.default),
    *(_aten.zeros_like.default, _aten.ones_like.default, _aten.full_like.default),
}
"""Operators that use only the data type of their first argument, and some its shape."""
_RESHAPES = {_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default}
_WHERE = ("device", "pin_memory", "layout", "non_blocking")
"""Arguments about the place of a tensor; they are dropped, because tensors are on the network's device."""


@dataclass(frozen=True)
class Ref:
    """The result of another call; ``images`` is the input."""

    name: str


@dataclass(frozen=True)
class TensorName:
    """A parameter, buffer or constant of the model."""

    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """A call of an operator.

    Attributes:
        name: name of its result.
        target: the operator; None if it takes one of several outputs of another call.
        args, kwargs: numbers, text, lists, ``Ref``, ``TensorName``, and sizes as expressions.
        shape: shape of its result; None for several results.
        sees_images: whether its result depends on the images.
    """

    name: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[sympy.Expr, ...] | None
    sees_images: bool

    @property
    def reads(self) -> list[str]:
        """The names of the calls whose results it reads."""
        return [each.name for each in _leaves((self.args, dict(self.kwargs))) if isinstance(each, Ref)]

    @property
    def tensors(self) -> list[str]:
        """The names of the tensors that it reads."""
        return [each.name for each in _leaves((self.args, dict(self.kwargs))) if isinstance(each, TensorName)]


@dataclass(frozen=True, eq=False)
class Program:
    """A model as a list of calls.

    Attributes:
        calls: the calls, in order.
        output: name of the call that returns the logits.
        constants: tensors that depend neither on weights nor on images, by name.
    """

    calls: tuple[Call, ...]
    output: str
    constants: Mapping[str, Tensor] = field(default_factory=dict)


def _leaves(argument: Any) -> list[Any]:
    if isinstance(argument, dict):
        return _leaves(list(argument.values()))
    if isinstance(argument, list | tuple):
        return [leaf for each in argument for leaf in _leaves(each)]
    return [argument]


def simplify(trace: Trace) -> Program:
    """The simplified program of a traced model.

    Raises:
        SpaceError: its output is not the result of a call.
    """
    return _Simplifier(trace).program()


class _Simplifier:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._meaning: dict[fx.Node, Any] = {}
        self._values: dict[fx.Node, Tensor] = {}  # values that depend neither on images, weights nor elastic sizes
        self._sees: set[str] = {"images"}
        self._calls: list[Call] = []
        self._constants: dict[str, Tensor] = {}
        placeholders = [node for node in trace.graph.nodes if node.op == "placeholder"]
        self._meaning[placeholders[0]] = Ref("images")
        self._meaning.update(zip(placeholders[1:], map(TensorName, trace.tensors), strict=True))

    def program(self) -> Program:
        for node in self._trace.graph.nodes:
            match node.op:
                case "get_attr":
                    self._values[node] = getattr(self._trace.program, str(node.target))
                case "call_function":
                    self._add(node)
                case "output":
                    found = self._argument(node.args[0])
                    if not isinstance(found, Ref) or found.name == "images":
                        raise SpaceError("a model must compute its output from its input, but this one does not; give another model")
                    return self._needed(found.name)
        raise AssertionError("every graph has an output")

    def _needed(self, output: str) -> Program:
        """The calls that the output depends on, without dead code such as reads of shapes."""
        wanted, kept = {output}, []
        for call in reversed(self._calls):
            if call.name in wanted:
                kept.append(call)
                wanted.update(call.reads)
        used = {name for call in kept for name in call.tensors}
        return Program(tuple(reversed(kept)), output, {name: value for name, value in self._constants.items() if name in used})

    def _add(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool | int | float):
            self._meaning[node] = self._size(value)
        elif node.target in _NOTHING or self._keeps_all(node):
            self._alias(node, node.args[0])
        elif self._is_constant(node):
            self._values[node] = self._computed(node)
        else:
            self._keep(node, value)

    def _keeps_all(self, node: fx.Node) -> bool:
        """Whether a call is a no-op for the given sizes or types."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not isinstance(source.meta.get("val"), Tensor) or not isinstance(node.meta["val"], Tensor):
            return False
        if node.target is _aten.contiguous.default:
            return self._lies_in_order(source.meta["val"])
        if node.target in (_aten.to.dtype, _aten._to_copy.default):
            return bool(node.meta["val"].dtype == source.meta["val"].dtype)
        return bool(node.target in _RESHAPES | _MAYBE_NOTHING and self._shape(source.meta["val"]) == self._shape(node.meta["val"]))

    def _lies_in_order(self, value: Tensor) -> bool:
        """Whether a value is contiguous, by its real sizes, because asking torch would fix them.

        Calls of ``contiguous`` are kept where they have an effect, because the last bits of other calls' results depend on it.
        """
        sizes, strides = ([int(self._trace.sizes.value(self._size(each))) for each in found] for found in (value.shape, value.stride()))
        expected = [math.prod(sizes[dim + 1 :]) for dim in range(len(sizes))]
        return all(size == 1 or one == other for size, one, other in zip(sizes, strides, expected, strict=True))

    def _alias(self, node: fx.Node, source: Any) -> None:
        for known in (self._values, self._meaning):
            if source in known:
                known[node] = known[source]

    def _is_constant(self, node: fx.Node) -> bool:
        args = node.args[1:] if node.target in _LIKE else node.args
        sizes = [each for each in _leaves((args, dict(node.kwargs))) if isinstance(each, fx.Node) and each not in self._values]
        symbolic = isinstance(node.meta.get("val"), Tensor) and any(expr.free_symbols for expr in self._shape(node.meta["val"]))
        return not symbolic and all(getattr(self._meaning.get(each), "is_Integer", False) for each in sizes)

    def _computed(self, node: fx.Node) -> Any:
        def plain(each: fx.Node) -> Any:
            if each in self._values:
                return self._values[each]
            value = each.meta["val"]
            if isinstance(value, Tensor):
                return torch.empty([int(self._trace.sizes.value(size)) for size in self._shape(value)], dtype=value.dtype)
            return int(self._meaning[each])

        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), plain)
        target: Any = _aten.reshape.default if node.target in _RESHAPES else node.target
        return target(*args, **kwargs)

    def _keep(self, node: fx.Node, value: Any) -> None:
        target, args, kwargs = _with_numbers(*_out_of_place(node))
        kwargs = {name: self._argument(each) for name, each in kwargs.items() if name not in _WHERE}
        args = tuple(self._argument(each) for each in args)
        shape = self._shape(value) if isinstance(value, Tensor) else None
        if target in _RESHAPES:
            target, args = _aten.reshape.default, (args[0], list(shape or ()))
        if getattr(target, "__name__", "") == "getitem":
            target = None
        call = Call(node.name, target, args, kwargs, shape, False)
        sees = any(name in self._sees for name in call.reads)
        self._sees.update([node.name] * sees)
        self._calls.append(Call(node.name, target, args, kwargs, shape, sees))
        self._meaning[node] = Ref(node.name)
        if target is not node.target and isinstance(node.args[0], fx.Node) and node.target is not _aten.reshape.default:
            self._meaning[node.args[0]] = self._written(node)

    def _written(self, node: fx.Node) -> Any:
        """The meaning of a node's first argument after the call: the result, if the operator works in place."""
        mutable = getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        return Ref(node.name) if mutable else self._meaning.get(node.args[0])  # type: ignore[arg-type]

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self._constant(argument) if argument in self._values else self._meaning[argument]
        if isinstance(argument, list | tuple):
            return [self._argument(each) for each in argument]
        if isinstance(argument, torch.SymInt):
            return self._size(argument)
        return argument

    def _constant(self, node: fx.Node) -> Any:
        value = self._values[node]
        if not value.dim() or (value.numel() == 1 and not value.is_floating_point()):
            return value.item()
        name = next((known for known, other in self._constants.items() if other is value), f"constants.{len(self._constants)}")
        self._constants[name] = value
        return TensorName(name)

    def _shape(self, value: Tensor) -> tuple[sympy.Expr, ...]:
        return tuple(self._size(size) for size in value.shape)

    def _size(self, size: Any) -> Any:
        if isinstance(size, bool | float):
            return size
        if isinstance(size, int):
            return sympy.Integer(size)
        if isinstance(size, torch.SymInt):
            return sympy.sympify(self._trace.sizes.replace(size.node.expr))
        return self._trace.sizes.value(size.node.expr)


def _out_of_place(node: fx.Node) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Replace an in-place operator by its out-of-place form."""
    target, kwargs = node.target, dict(node.kwargs)
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return target, node.args, kwargs
    packet, _, overload = schema.name.removeprefix("aten::").partition(".")
    overload = schema.overload_name or "default"
    plain: Callable[..., Any] | None = getattr(getattr(_aten, packet.removesuffix("_"), None), overload, None)
    if plain is None or not packet.endswith("_"):
        raise SpaceError(f"an in-place call must have an out-of-place form, but the model calls {schema.name}; write y = ... instead")
    return plain, node.args, kwargs


def _with_numbers(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Replace a convolution's padding by name with numbers, if it is symmetric."""
    if target is not _aten.conv2d.padding or len(args) < 5:
        return target, args, kwargs
    kernel, dilation = args[1].meta["val"].shape[2:], [*args[5], *args[5]][:2] if len(args) > 5 else [1, 1]
    both = [spacing * (side - 1) if args[4] == "same" else 0 for side, spacing in zip(kernel, dilation, strict=True)]
    if any(each % 2 for each in both):
        return target, args, kwargs
    return _aten.conv2d.default, (*args[:4], [each // 2 for each in both], *args[5:]), kwargs
