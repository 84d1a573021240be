"""Subnets of one step that begin with the same blocks compute these blocks once.

All networks of a space share their stem, and the fewer choices are open, the more of what follows. The blocks of a step's subnets make
a tree. It is walked in depth: a block runs forward once for all subnets behind it, and backward once on the sum of their gradients. As
backward is linear, the result is that of separate passes, up to rounding. Only one path is in memory at a time, as with one subnet.

Shapes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from ofa.blocks import PlacedBlock

__all__ = ["Finish", "Pieces", "run_together"]

Pieces = Sequence[tuple[PlacedBlock, nn.Module]]
"""The blocks of a network from the input to the logits, and their modules."""
Finish = Callable[[int, nn.Module, Tensor], Tensor]
"""Given the number of a network, its last module and that one's input: the loss, a scalar that gradients are taken of."""


def run_together(networks: Sequence[Pieces], x_BCHW: Tensor, finish: Finish) -> None:
    """Forward and backward through all networks, so that gradients add up in their parameters.

    Running statistics move as in separate passes: a batch norm that serves k networks moves k times at once. The last block, the
    classifier with its dropout, is never shared.

    Args:
        networks: in training mode; blocks that are equal, behind equal ones, must have one module.
        x_BCHW: the images of all.
        finish: called once a network, in an order that begins with the first.
    """
    root = _Node(nn.Identity())
    for number, pieces in enumerate(networks):
        node = root
        for placed, module in pieces[:-1]:
            node.numbers.append(number)
            node = node.children.setdefault(placed, _Node(module))
        node.numbers.append(number)
        node.ends[number] = pieces[-1][1]
    _run(root, x_BCHW, finish)


@dataclass(eq=False)
class _Node:
    """A block in the tree.

    Attributes:
        module: what computes it.
        numbers: of the networks that pass through it, the least first.
        children: the blocks behind it.
        ends: the last modules behind it, by the numbers of their networks.
    """

    module: nn.Module
    numbers: list[int] = field(default_factory=list)
    children: dict[PlacedBlock, _Node] = field(default_factory=dict)
    ends: dict[int, nn.Module] = field(default_factory=dict)


def _run(node: _Node, x_BCHW: Tensor, finish: Finish) -> None:
    """Run a node and all behind it; autograd's graph is cut at forks alone."""
    x_BCHW = _forward(node, x_BCHW)
    while len(node.children) == 1 and not node.ends:
        (node,) = node.children.values()
        x_BCHW = _forward(node, x_BCHW)
    if len(node.numbers) == 1:
        (number,) = node.numbers
        finish(number, node.ends[number], x_BCHW).backward()
        return
    cut_BCHW = x_BCHW.detach().requires_grad_(x_BCHW.requires_grad)
    branches = {child.numbers[0]: child for child in node.children.values()}
    for number in sorted([*branches, *node.ends]):
        if number in branches:
            _run(branches[number], cut_BCHW, finish)
        else:
            finish(number, node.ends[number], cut_BCHW).backward()
    if x_BCHW.requires_grad:
        x_BCHW.backward(cut_BCHW.grad)


def _forward(node: _Node, x_BCHW: Tensor) -> Tensor:
    with _moving(node.module, len(node.numbers)):
        result: Tensor = node.module(x_BCHW)
    return result


@contextmanager
def _moving(module: nn.Module, times: int) -> Iterator[None]:
    """Let batch norms move their running statistics so far in one pass as ``times`` passes over the same images would."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)] if times > 1 else []
    momenta = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = None if momentum is None else 1 - (1 - momentum) ** times
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
