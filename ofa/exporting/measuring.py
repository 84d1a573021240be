"""Shapes of all values of a traced network, found by running it on fake tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ofa.errors import ExportError
from ofa.exporting.graph import Kind, Shape

__all__ = ["Measures"]

_BATCHES = (2, 3)
"""Batch sizes of two runs; sizes that differ between them depend on the batch size."""


class Measures:
    """Shapes and data types of the values of a graph; the network is run at the first query.

    Args:
        root: owner of the graph's modules and tensors.
        graph: graph of the network in evaluation mode.
        shape: shape of the input; the batch size may be open (None).
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, shape: Shape) -> None:
        self._root, self._graph, self._shape = root, graph, shape
        self._runs: list[dict[fx.Node, Any]] = []

    def of(self, node: fx.Node) -> Kind:
        """Shape and data type of a node's result.

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
        except Exception as error:  # torch's shape errors have no common base but Exception
            reason = " ".join(str(error).split("\n")[0].split())
            raise ExportError(
                f"an exported network must fit the shape of its input, but with the shape {shape} torch reports: {reason}; "
                "pass the network's input shape"
            ) from error
        return interpreter.env
