"""From a network to the calls of its modules, in order, and those to nodes of an ONNX graph.

Only what the values flow through is traced; parameters stay where they are and nothing of the network is copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from ofa.errors import ExportError
from ofa.exporting.operators import FUNCTIONS, MODULES, Call, GraphWriter, handler_of
from ofa.modes import evaluating

__all__ = ["FEATURES", "INPUT", "LOGITS", "write_calls"]

INPUT = "images"
"""Name of the input of every exported file."""

LOGITS = "logits"
"""Name of the output of a network, of shape [B, classes]."""

FEATURES = "output"
"""Name of the output of a block, of shape [B, C, H, W]."""


class _Tracer(fx.Tracer):
    """Traces down to the modules that have a handler, and to those of torch that have none, so that they can be named."""

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
    """Write all calls of ``network`` in evaluation mode; returns the name of the value that is its result.

    Raises:
        ExportError: it has an operation without a handler, or its forward decides by values.
    """
    root, graph = _trace(network)
    folded = _foldable(root, graph)
    norms = set(folded.values())
    values: dict[fx.Node, str] = {}
    taken = {INPUT, LOGITS, FEATURES}
    for node in graph.nodes:
        if node.kwargs:
            raise _unknown(f"{_function_name(node.target)} with the arguments {', '.join(node.kwargs)}")
        match node.op:
            case "placeholder" if not values:
                values[node] = INPUT
            case "call_module" if node in norms:
                values[node] = values[node.args[0]]
            case "call_module":
                values[node] = _write_module(writer, root, node, values, folded.get(node), taken)
            case "call_function" if node.target in FUNCTIONS:
                call = Call(_unique(node.name, taken), _inputs(node, values), node.name)
                values[node] = FUNCTIONS[node.target](writer, call)
            case "output" if isinstance(node.args[0], fx.Node):
                return values[node.args[0]]
            case _:
                raise _unknown(f"{node.op} {_function_name(node.target)}")
        if _in_place(root, node):
            overwritten = values[node.args[0]]
            values.update({each: values[node] for each, value in values.items() if value == overwritten})
    raise AssertionError("every traced graph has an output")


def _write_module(
    writer: GraphWriter, root: nn.Module, node: fx.Node, values: Mapping[fx.Node, str], norm: fx.Node | None, taken: set[str]
) -> str:
    place = str(node.target)
    module = root.get_submodule(place)
    handler = handler_of(module)
    if handler is None:
        raise _unknown(f"{type(module).__name__} at '{place}'")
    batch_norm: Any = None if norm is None else root.get_submodule(str(norm.target))
    return handler(writer, Call(_unique(place, taken), _inputs(node, values), place, module, batch_norm))


def _foldable(root: nn.Module, graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """By convolution the batch norm that alone reads it; a module that is called more than once keeps its own weights."""
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
    """Whether the module also changes the value it reads, so that later readers of that value meet the result."""
    return node.op == "call_module" and bool(getattr(root.get_submodule(str(node.target)), "inplace", False))


def _inputs(node: fx.Node, values: Mapping[fx.Node, str]) -> tuple[str, ...]:
    return tuple(values[argument] for argument in node.args if isinstance(argument, fx.Node))


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}.call{number}"
    taken.add(candidate)
    return candidate


def _function_name(target: Any) -> str:
    return getattr(target, "__name__", None) or str(target)


def _unknown(what: str) -> ExportError:
    known = ", ".join(sorted(kind.__name__ for kind in MODULES))
    return ExportError(
        f"an exported network must be made of {known}, and sums and products of two values, but it has {what}; "
        "use one of these or enter a handler in ofa.exporting.operators"
    )
