"""Training steps on a GPU that replay CUDA graphs, one graph for the forward and one for the backward of each block.

A block of a small network keeps a GPU busy for less time than Python needs to launch its kernels. There are too many subnets to record
each, but few blocks (nine for each place of a MobileNetV3), and a subnet is a chain of blocks, so each block is recorded by itself.
Between two blocks lies a boundary: memory at fixed addresses, to which the first block writes its output and from which it reads the
gradient of that output. Alternative blocks of one place never run at the same time, so their graphs share memory, as much as the largest
of them needs.

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
"""Replays a recording on the present contents of the same addresses."""


class Graphs(Protocol):
    """Records computations as graphs, and replays them."""

    def pool(self) -> Any:
        """A memory pool for graphs that never run at the same time."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """Context for the warm-up run of a computation before its recording, so that its kernels are loaded."""
        ...

    def record(self, compute: Callable[[], None], pool: Any) -> Replay:
        """Record ``compute`` without executing it."""
        ...


class CudaGraphs:
    """CUDA graphs of torch."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def pool(self) -> Any:
        """A memory pool of torch's allocator."""
        return torch.cuda.graph_pool_handle()

    def aside(self) -> AbstractContextManager[None]:
        """Context on the stream on which graphs are recorded."""
        return _OnStream(self._stream)

    def record(self, compute: Callable[[], None], pool: Any) -> Replay:
        """Capture the kernels that ``compute`` launches. Other threads, such as a loader's, may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with self.aside():
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                compute()
            finally:
                graph.capture_end()
        return graph.replay


class _OnStream:
    """Runs work on another stream, ordered after earlier and before later work of the current stream."""

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
        value: the first block's output.
        gradient: gradient of the loss by the value, written by the second block; None at the input images.
    """

    value: Tensor
    gradient: Tensor | None


class Recorder:
    """Runs the subnets of a step, as ``run_together`` does, and records their blocks as graphs.

    A block is computed eagerly the first time, recorded the second time, and replayed from then on. A recording refers to addresses of
    weights, not to values: other values may be loaded into them.

    Args:
        graphs: records the graphs.
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
        """The output of a network that is not trained, such as a teacher; the next call overwrites it."""
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
        """Run all that follows a node, and write the sum of the gradients to its boundary."""
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
        graphs: records the graphs.
        piece: the block.
        users: number of subnets that share this pass.
        source: boundary of its input.
        boundary: maps an output to the boundary that it is written to.
        pool: memory pool of its graphs.
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
        """Boundary of its output, known after the first forward."""
        assert self._output is not None
        return self._output

    def forward(self) -> None:
        """Compute the output's value from the source's value."""
        if self._output is None:
            with self._graphs.aside():
                self._compute_forward()
            return
        if self._replays is None:
            forward = self._graphs.record(self._compute_forward, self._pool)
            self._replays = forward, self._graphs.record(self._compute_backward, self._pool)
        self._replays[0]()

    def backward(self) -> None:
        """Compute the source's gradient from the output's gradient, and add to the gradients of the supernet."""
        if self._replays is not None:
            self._replays[1]()
            return
        with self._graphs.aside():
            self._compute_backward()

    def _compute_forward(self) -> None:
        x_BCHW = self._source.value.detach().requires_grad_(self._source.gradient is not None)
        # No autocast cache: each graph must cast the weights itself, since cached casts live in the memory of the graph that made them.
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
    """The forward pass of a network that is not trained."""

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
