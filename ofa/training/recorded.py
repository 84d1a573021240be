"""Steps on a GPU whose kernels are launched from CUDA graphs: one for each block that a step has met, forward and backward.

A block of a small network keeps a GPU busy for less time than Python needs to launch its kernels. There are too many subnets to record
each, but few blocks (nine for each place of a MobileNetV3), and a subnet is a row of blocks. So each is recorded by itself. Between two
blocks lies a boundary: memory at a fixed address, where the one leaves its output and finds the gradient by it. The blocks that may stand
at one place are never in use together, so their graphs share memory, as if there was only the largest of them.

Shapes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ofa.pieces import Piece
from ofa.training.prefixes import Finish, Node, moving, tree

__all__ = ["CudaGraphs", "Graphs", "Recorder"]

Replay = Callable[[], object]
"""Does again what was recorded, on what lies at the same addresses now."""


class Graphs(Protocol):
    """What records and replays."""

    def pool(self) -> Any:
        """Memory for graphs that are never in use together."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """Where work is done that will be recorded the next time, so that all it needs is loaded."""
        ...

    def record(self, compute: Callable[[], None], pool: Any) -> Replay:
        """Record ``compute`` without doing it."""
        ...


class CudaGraphs:
    """CUDA's own."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def pool(self) -> Any:
        """A memory pool of the allocator's."""
        return torch.cuda.graph_pool_handle()

    def aside(self) -> AbstractContextManager[None]:
        """The stream that is recorded on."""
        return _OnStream(self._stream)

    def record(self, compute: Callable[[], None], pool: Any) -> Replay:
        """Capture the kernels that ``compute`` launches. Other threads may go on using the GPU, as a loader's does."""
        graph = torch.cuda.CUDAGraph()
        with self.aside():
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                compute()
            finally:
                graph.capture_end()
        return graph.replay


class _OnStream:
    """Work on another stream, after all before and before all behind it."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        self._outside = torch.cuda.current_stream()
        self._stream.wait_stream(self._outside)
        self._inside = torch.cuda.stream(self._stream)
        self._inside.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inside.__exit__(*error)
        self._outside.wait_stream(self._stream)


@dataclass(frozen=True, eq=False)
class _Boundary:
    """Memory between two blocks.

    Attributes:
        value: what the first of them gives.
        gradient: of the loss by it, which the second gives; None at the images.
    """

    value: Tensor
    gradient: Tensor | None


class Recorder:
    """Runs the subnets of a step, as ``run_together`` does, and records their blocks on the way.

    A block is computed as usual when it is first met, recorded the second time, and replayed from then on. What was recorded holds
    for the weights at their addresses: training may go on after loading other values into them.

    Args:
        graphs: what records.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._boundaries: dict[Hashable, _Boundary] = {}
        self._passes: dict[Hashable, _Pass] = {}
        self._answers: dict[Hashable, _Answer] = {}
        self._pools: dict[str, Any] = {}

    def run_together(self, networks: Sequence[Sequence[Piece]], x_BCHW: Tensor, finish: Finish) -> None:
        """Forward and backward through all networks; arguments and results as of ``ofa.training.prefixes.run_together``."""
        root = tree(networks)
        images = self._boundary("images", x_BCHW, needs_gradient=False)
        images.value.copy_(x_BCHW)
        for child in root.children.values():
            self._run(child, images, finish)

    def answer(self, network: nn.Module, x_BCHW: Tensor) -> Tensor:
        """The output of a network that does not learn, such as a teacher; it is overwritten by the next call."""
        key = (network, *_kind(x_BCHW), _precision(x_BCHW))
        if key not in self._answers:
            images = self._boundary("images", x_BCHW, needs_gradient=False)
            self._answers[key] = _Answer(self._graphs, network, images.value, self._pool("answers"))
        images = self._boundary("images", x_BCHW, needs_gradient=False)
        images.value.copy_(x_BCHW)
        return self._answers[key].give()

    def _run(self, node: Node, source: _Boundary, finish: Finish) -> None:
        path = []
        while True:
            step = self._pass(node, source)
            step.forward()
            path.append(step)
            source = step.output
            if len(node.children) != 1 or node.ends:
                break
            (node,) = node.children.values()
        self._branch(node, source, finish)
        for step in reversed(path):
            step.backward()

    def _branch(self, node: Node, source: _Boundary, finish: Finish) -> None:
        """Run all behind a node, and leave the sum of their gradients at its boundary."""
        assert source.gradient is not None
        total: Tensor | None = None
        branches = node.branches()
        for number, child in branches:
            if child is None:
                features = source.value.detach().requires_grad_()
                finish(number, node.ends[number], features).backward()
                assert features.grad is not None
                source.gradient.copy_(features.grad)
            else:
                self._run(child, source, finish)
            if len(branches) > 1:
                total = source.gradient.clone() if total is None else total.add_(source.gradient)
        if total is not None:
            source.gradient.copy_(total)

    def _pass(self, node: Node, source: _Boundary) -> _Pass:
        piece, users = node.piece, len(node.numbers)
        key = (piece.module, source, users, _precision(source.value))
        if key not in self._passes:
            pool = self._pool(piece.name)

            def boundary(y: Tensor) -> _Boundary:
                return self._boundary(piece.name, y, needs_gradient=True)

            self._passes[key] = _Pass(self._graphs, piece, users, source, boundary, pool)
        return self._passes[key]

    def _boundary(self, place: str, like: Tensor, *, needs_gradient: bool) -> _Boundary:
        key = (place, *_kind(like))
        if key not in self._boundaries:
            value = torch.empty_like(like, requires_grad=False)
            self._boundaries[key] = _Boundary(value, torch.empty_like(value) if needs_gradient else None)
        return self._boundaries[key]

    def _pool(self, place: str) -> Any:
        if place not in self._pools:
            self._pools[place] = self._graphs.pool()
        return self._pools[place]


class _Pass:
    """One block at one place, reading from one boundary.

    Args:
        graphs: what records.
        piece: the block.
        users: how many subnets pass through it at once.
        source: where its input lies.
        boundary: given an output, where it is to be left.
        pool: of memory.
    """

    def __init__(
        self, graphs: Graphs, piece: Piece, users: int, source: _Boundary, boundary: Callable[[Tensor], _Boundary], pool: Any
    ) -> None:
        self._graphs, self._piece, self._users, self._source, self._find, self._pool = graphs, piece, users, source, boundary, pool
        self._replays: tuple[Replay, Replay] | None = None
        self._output: _Boundary | None = None
        self._graph_of_autograd: tuple[Tensor, Tensor] | None = None

    @property
    def output(self) -> _Boundary:
        """Where its output lies, once it was computed."""
        assert self._output is not None
        return self._output

    def forward(self) -> None:
        """From the source's value to the output's."""
        if self._output is None:
            with self._graphs.aside():
                self._compute_forward()
            return
        if self._replays is None:
            forward = self._graphs.record(self._compute_forward, self._pool)
            self._replays = forward, self._graphs.record(self._compute_backward, self._pool)
        self._replays[0]()

    def backward(self) -> None:
        """From the output's gradient to the source's, and into the gradients of the supernet."""
        if self._replays is not None:
            self._replays[1]()
            return
        with self._graphs.aside():
            self._compute_backward()

    def _compute_forward(self) -> None:
        x_BCHW = self._source.value.detach().requires_grad_(self._source.gradient is not None)
        # Copies of the weights in the precision at hand are made in each graph: the cache's belong to whatever made them first.
        with torch.enable_grad(), _without_cache(x_BCHW), moving(self._piece.module, self._users):
            y = self._piece.module(x_BCHW)
        if self._output is None:
            self._output = self._find(y)
        self._output.value.copy_(y.detach())
        self._graph_of_autograd = x_BCHW, y

    def _compute_backward(self) -> None:
        assert self._graph_of_autograd is not None
        x_BCHW, y = self._graph_of_autograd
        self._graph_of_autograd = None
        learned = [leaf.parameter for leaf in self._piece.leaves]
        inputs = [x_BCHW] if x_BCHW.requires_grad else []
        found = list(torch.autograd.grad(y, [*inputs, *learned], self.output.gradient))
        if inputs:
            assert self._source.gradient is not None
            self._source.gradient.copy_(found.pop(0))
        for leaf, gradient in zip(self._piece.leaves, found, strict=True):
            leaf.gradient.add_(gradient)


class _Answer:
    """A network that does not learn."""

    def __init__(self, graphs: Graphs, network: nn.Module, source: Tensor, pool: Any) -> None:
        self._graphs, self._network, self._source, self._pool = graphs, network, source, pool
        self._replay: Replay | None = None
        self._output: Tensor | None = None

    def give(self) -> Tensor:
        if self._output is None:
            with self._graphs.aside():
                self._compute()
        else:
            if self._replay is None:
                self._replay = self._graphs.record(self._compute, self._pool)
            self._replay()
        assert self._output is not None
        return self._output

    def _compute(self) -> None:
        with torch.no_grad(), _without_cache(self._source):
            output = self._network(self._source)
        if self._output is None:
            self._output = torch.empty_like(output)
        self._output.copy_(output)


def _kind(tensor: Tensor) -> tuple[Hashable, ...]:
    return (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else True)


def _precision(tensor: Tensor) -> Hashable:
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _without_cache(tensor: Tensor) -> torch.autocast:
    kind = tensor.device.type
    return torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False)
