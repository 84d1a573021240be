"""Traces a network, and writes the traced calls in order as nodes of an ONNX graph.

Only the data flow is traced; parameters stay in place and nothing of the network is copied.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from ofa.blocks.batch import batch_size
from ofa.errors import ExportError
from ofa.exporting.aten import aten_handler
from ofa.exporting.graph import Call, GraphWriter, Kind, UnknownOperationError, Value
from ofa.exporting.measuring import Measures
from ofa.exporting.operators import FUNCTIONS, MODULES, handler_of
from ofa.modes import evaluating

__all__ = ["FEATURES", "INPUT", "LOGITS", "write_calls"]

INPUT = "images"
"""Name of the input of every exported file."""

LOGITS = "logits"
"""Name of the output of a network, of shape [B, classes]."""

FEATURES = "output"
"""Name of the output of a block, of shape [B, C, H, W]."""


_SIZES: Mapping[Any, str] = {operator.add: "Add", operator.floordiv: "Div", operator.mul: "Mul", operator.sub: "Sub"}
"""Operators on sizes that depend on the batch size."""


class _Tracer(fx.Tracer):
    """Traces down to modules with a handler, and to torch's modules without one, so that errors can name them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return handler_of(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _trace(network: nn.Module) -> tuple[nn.Module, fx.Graph]:
    root = network if handler_of(network) is None else nn.Sequential(network)
    try:
        with evaluating(network):
            return root, _Tracer().trace(root)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ExportError(
            f"an exported network must run the same modules for every input, but tracing {type(network).__name__} met: {error}; "
            "take decisions that depend on values out of its forward"
        ) from error


def write_calls(writer: GraphWriter, network: nn.Module) -> str:
    """Write all calls of a network in evaluation mode; returns the name of its result.

    Raises:
        UnknownOperationError: the network has an operation without a handler.
        ExportError: its forward branches on values, or does not fit the input of the graph.
    """
    root, graph = _trace(network)
    with evaluating(network), torch.no_grad():
        return _Calls(writer, root, graph).write()


class _Calls:
    """Writes the calls of a traced network."""

    def __init__(self, writer: GraphWriter, root: nn.Module, graph: fx.Graph) -> None:
        self._writer, self._root, self._graph = writer, root, graph
        dims = writer.graph.input[0].type.tensor_type.shape.dim
        self._measures = Measures(root, graph, tuple(None if dim.dim_param else dim.dim_value for dim in dims))
        self._folded = _foldable(root, graph)
        self._norms = set(self._folded.values())
        self._order = {node: number for number, node in enumerate(graph.nodes)}
        self._values: dict[fx.Node, Any] = {}
        self._constants: dict[fx.Node, Any] = {}
        self._views: dict[str, str] = {}
        self._sizes: set[fx.Node] = set()
        self._taken = {INPUT, LOGITS, FEATURES, *(str(node.target) for node in graph.nodes if node.op == "get_attr")}

    def write(self) -> str:
        """Write all calls; returns the name of the result."""
        for node in self._graph.nodes:
            if node.op == "output":
                return self._result(node)
            if node.op != "placeholder" and all(each in self._constants for each in node.all_input_nodes):
                self._fold(node)
            else:
                self._values[node] = self._write(node)
                self._overwrite(node)
        raise AssertionError("every traced graph has an output")

    def _result(self, node: fx.Node) -> str:
        result = self._values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
        if not isinstance(result, Value):
            raise _unknown("an output that is not one tensor")
        return self._writer.value(result)

    def _write(self, node: fx.Node) -> Any:
        target: Any = node.target
        source: Any = node.args[0] if node.args else None
        match node.op:
            case "placeholder" if not self._values:
                return self._value(node, INPUT)
            case "call_module" if node in self._norms:
                return self._value(node, self._values[source].name)
            case "call_module":
                return self._value(node, self._write_module(node))
            case "call_function" if target is batch_size:
                return self._size(node, self._values[source], 0)
            case "call_function" if target in _SIZES and any(each in self._sizes for each in node.all_input_nodes):
                return self._computed_size(node)
            case "call_function" if target in FUNCTIONS and not node.kwargs:
                return self._value(node, FUNCTIONS[target](self._writer, self._call(node, node.name, node.args)))
            case "call_function" if isinstance(target, OpOverload):
                return self._write_aten(node)
            case "call_function" if target is getattr and node.args[1] == "shape":
                return self._values[source]  # the next node takes an item of the shape
            case "call_function" if target is operator.getitem and isinstance(self._values[source], tuple):
                return self._value(node, self._values[source][node.args[1]])
            case "call_function" if target is operator.getitem and source.target is getattr:
                return self._size(node, self._values[source], node.args[1])
        named = f" with the arguments {', '.join(node.kwargs)}" if node.kwargs else ""
        raise _unknown(f"{node.op} {_function_name(target)}{named}")

    def _value(self, node: fx.Node, name: str) -> Value:
        return Value(name, lambda: self._measures.of(node))

    def _call(self, node: fx.Node, place: str, arguments: Sequence[Any], **more: Any) -> Call:
        """The call of a node; its inputs are the tensors among the arguments."""
        read = fx.map_arg(tuple(arguments), lambda each: self._values[each])
        inputs = tuple(self._writer.value(each) for each in read if isinstance(each, Value))
        return Call(_unique(place, self._taken), inputs, place, arguments=read, **more)

    def _write_module(self, node: fx.Node) -> str:
        place = str(node.target)
        module = self._root.get_submodule(place)
        handler = handler_of(module)
        if handler is None or node.kwargs:
            raise _unknown(f"{type(module).__name__} at '{place}'")
        norm = self._folded.get(node)
        batch_norm = None if norm is None else self._root.get_submodule(str(norm.target))
        return handler(self._writer, self._call(node, place, node.args, module=module, batch_norm=batch_norm))

    def _write_aten(self, node: fx.Node) -> Any:
        target: Any = node.target
        if target is torch.ops.aten.sym_size.int:
            return self._size(node, _tensor(self._values, node), node.args[1])
        handler = aten_handler(target)
        if handler is None:
            raise _unknown(str(target))
        arguments = fx.map_arg(_arguments(node), lambda each: self._values[each])
        name = handler(self._writer, Call(_unique(node.name, self._taken), (), f"{target} at {node.name}", arguments=arguments))
        if isinstance(name, tuple):
            return name
        value, source = self._value(node, name), arguments[0]
        if target._schema.returns[0].alias_info is not None and isinstance(source, Value) and source.name != name:
            self._views[name] = self._views.get(source.name, source.name)
        return value

    def _size(self, node: fx.Node, value: Value, dim: Any) -> int | Value:
        """A size of a value: a number, or, if it depends on the batch size, the result [1] of an operator."""
        if not isinstance(dim, int):
            raise _unknown("a slice of a shape")
        size = value.shape[dim]
        self._sizes.add(node)
        if size is not None:
            return size
        call = self._call(node, node.name, ())
        shape = self._writer.step("Shape", call, "shape", (self._writer.value(value),))
        dim %= len(value.shape)
        name = self._writer.add("Gather", replace(call, inputs=(shape, self._writer.sizes(dim))), axis=0)
        return _of_size(name)

    def _computed_size(self, node: fx.Node) -> int | Value:
        self._sizes.add(node)
        operands: Any = fx.map_arg(tuple(node.args), lambda each: self._values[each])
        if not any(isinstance(each, Value) for each in operands):
            return int(node.target(*operands))  # type: ignore[operator]
        names = (each.name if isinstance(each, Value) else self._writer.sizes(each) for each in operands)
        return _of_size(self._writer.put(_SIZES[node.target], self._call(node, node.name, ()), *names))

    def _fold(self, node: fx.Node) -> None:
        """Constant folding: compute a value that does not depend on the input."""
        target, changes = node.target, _in_place(self._root, node)
        arguments: Any
        if isinstance(target, OpOverload) and _draws(target) and aten_handler(target) is None:
            raise _unknown(f"{target}, which draws random numbers")
        if changes:
            self._refuse_if_read_later(node)
        arguments, named = fx.map_arg((node.args, node.kwargs), lambda each: self._constants[each])
        if changes:
            arguments = (arguments[0].clone(), *arguments[1:])  # the argument may be a weight of the network
        match node.op:
            case "get_attr":
                result = attrgetter(str(target))(self._root)
            case "call_module":
                result = self._root.get_submodule(str(target))(*arguments, **named)
            case "call_method":
                result = getattr(arguments[0], str(target))(*arguments[1:], **named)
            case _:
                assert callable(target)
                result = target(*arguments, **named)
        self._constants[node] = self._values[node] = result
        if isinstance(result, Tensor):
            kind = Kind(tuple(result.shape), result.dtype)
            self._values[node] = Value(self._constant_name(node), lambda: kind, result.detach())
            if changes:
                source: Any = node.args[0]
                self._constants[source], self._values[source] = result, self._values[node]

    def _refuse_if_read_later(self, node: fx.Node) -> None:
        """Raise UnknownOperationError if another view of a constant is read after an in-place call has overwritten the constant."""
        source: Any = node.args[0]
        storage = self._constants[source].untyped_storage().data_ptr()
        for each, value in self._constants.items():
            if each is not source and isinstance(value, Tensor) and value.untyped_storage().data_ptr() == storage:
                self._refuse_readers(each, node)

    def _refuse_readers(self, view: fx.Node, node: fx.Node) -> None:
        if any(self._order[user] > self._order[node] for user in view.users):
            raise _unknown(f"{_function_name(node.target)} that changes a view of a value that is read later")

    def _constant_name(self, node: fx.Node) -> str:
        """A tensor's own name, unless a module writes a tensor of that name, perhaps with a batch norm folded into it."""
        name = str(node.target)
        if node.op != "get_attr":
            return _unique(f"{node.name}.constant", self._taken)
        called = any(name.rpartition(".")[0] == each.target for each in self._graph.nodes if each.op == "call_module")
        return f"{name}.constant" if called else name

    def _overwrite(self, node: fx.Node) -> None:
        """After an in-place call, let later readers of the overwritten value read the result."""
        if not _in_place(self._root, node):
            return
        overwritten = _tensor(self._values, node).name
        base = self._views.get(overwritten, overwritten)
        for each, value in self._values.items():
            if not isinstance(value, Value) or each is node:
                continue
            if value.name == overwritten:
                self._values[each] = self._value(each, self._values[node].name)
            elif self._views.get(value.name, value.name) == base:
                self._refuse_readers(each, node)


def _of_size(name: str) -> Value:
    """A size known only at run time. It is at least 0, so that ONNX's integer division equals Python's."""
    return Value(name, lambda: Kind((1,), torch.int64))


def _tensor(values: Mapping[fx.Node, Any], node: fx.Node) -> Value:
    """The first argument of a call."""
    source: Any = node.args[0]
    value = values[source]
    assert isinstance(value, Value)
    return value


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """All arguments of a call of a torch operator, in the order of its signature."""
    target: Any = node.target
    given, parameters = node.args, target._schema.arguments
    return (*given, *(node.kwargs.get(each.name, each.default_value) for each in parameters[len(given) :]))


def _draws(target: OpOverload[..., Any]) -> bool:
    return torch.Tag.nondeterministic_seeded in target.tags


def _foldable(root: nn.Module, graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Batch norms by the convolution that they can be folded into: its only reader, where the convolution is called only once."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    counts = Counter(node.target for node in calls)
    folded = {}
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1 or counts[source.target] > 1:
            continue
        norm, conv = (handler_of(root.get_submodule(str(each.target))) for each in (node, source))
        if norm is MODULES[nn.BatchNorm2d] and conv is MODULES[nn.Conv2d]:
            folded[source] = node
    return folded


def _in_place(root: nn.Module, node: fx.Node) -> bool:
    if isinstance(node.target, OpOverload):
        return node.target._schema.is_mutable
    return node.op == "call_module" and bool(getattr(root.get_submodule(str(node.target)), "inplace", False))


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}.call{number}"
    taken.add(candidate)
    return candidate


def _function_name(target: Any) -> str:
    return getattr(target, "__name__", None) or str(target)


def _unknown(what: str) -> UnknownOperationError:
    known = ", ".join(sorted(kind.__name__ for kind in MODULES))
    return UnknownOperationError(
        f"an exported network must be made of {known}, sums and products of two values, and the operators of torch.ops.aten that "
        f"ofa.exporting.aten lists, but it has {what}; use one of these or enter a handler there"
    )
