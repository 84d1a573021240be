"""Shapes of all values of a traced network, found by running it without numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ofa.errors import ExportError
from ofa.exporting.graph import Kind, Shape

__all__ = ["Measures"]

_BATCHES = (2, 3)
"""Images of the two runs that show which sizes depend on their number."""


class Measures:
    """Shapes and types of the values of a graph; the network runs when the first is asked for.

    Args:
        root: has the modules and tensors of the graph.
        graph: of the network in evaluation mode.
        shape: of the input, whose batch may be left open.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, shape: Shape) -> None:
        self._root, self._graph, self._shape = root, graph, shape
        self._runs: list[dict[fx.Node, Any]] = []

    def of(self, node: fx.Node) -> Kind:
        """Kind of the tensor that a node makes.

        Raises:
            ExportError: the network does not fit the shape of its input.
        """
        if not self._runs:
            batches = _BATCHES if None in self._shape else _BATCHES[:1]
            self._runs = [self._run([batch if size is None else size for size in self._shape]) for batch in batches]
        first, *others = [run[node] for run in self._runs]
        sizes = zip(first.shape, *(each.shape for each in others), strict=True)
        return Kind(tuple(each[0] if len(set(each)) == 1 else None for each in sizes), first.dtype)

    def _run(self, shape: list[int]) -> dict[fx.Node, Any]:
        interpreter = fx.Interpreter(self._root, garbage_collect_values=False, graph=self._graph)
        tensors: list[Tensor] = [*self._root.parameters(), *self._root.buffers()]
        device = tensors[0].device if tensors else torch.device("cpu")
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                interpreter.run(torch.empty(shape, device=device), enable_io_processing=False)
        except Exception as error:  # torch's errors of shapes have no common base but Exception
            reason = " ".join(str(error).split("\n")[0].split())
            raise ExportError(
                f"an exported network must fit the shape of its input, but with the shape {shape} torch reports: {reason}; "
                "pass the network's input shape"
            ) from error
        return interpreter.env
