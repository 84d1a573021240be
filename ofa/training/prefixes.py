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
from ofa.pieces import Piece

__all__ = ["Finish", "Node", "moving", "run_together", "tree"]

Finish = Callable[[int, nn.Module, Tensor], Tensor]
"""Given the number of a network, its last module and that one's input: the loss, a scalar that gradients are taken of."""


def run_together(networks: Sequence[Sequence[Piece]], x_BCHW: Tensor, finish: Finish) -> None:
    """Forward and backward through all networks, so that gradients add up in their parameters.

    Running statistics move as in separate passes in this order: a batch norm that serves k networks moves k times at once. The last
    block, the classifier with its dropout, is never shared.

    Args:
        networks: in training mode.
        x_BCHW: the images of all.
        finish: called once a network, in an order that begins with the first and puts those together that share blocks.
    """
    for child in tree(networks).children.values():
        _run(child, x_BCHW, finish)


@dataclass(eq=False)
class Node:
    """A block in the tree of several networks.

    Attributes:
        piece: the block.
        numbers: of the networks that pass through it, the least first.
        children: the blocks behind it.
        ends: the last modules behind it, by the numbers of their networks.
    """

    piece: Piece
    numbers: list[int] = field(default_factory=list)
    children: dict[tuple[PlacedBlock, ...], Node] = field(default_factory=dict)
    ends: dict[int, nn.Module] = field(default_factory=dict)

    def branches(self) -> list[tuple[int, Node | None]]:
        """What follows, in the order of the networks: the number of one that ends here and None, or the first of a child and it."""
        following: list[tuple[int, Node | None]] = [(number, None) for number in self.ends]
        following += [(child.numbers[0], child) for child in self.children.values()]
        return sorted(following, key=lambda branch: branch[0])


def tree(networks: Sequence[Sequence[Piece]]) -> Node:
    """The root, which is no block itself, of the tree that the networks make but for their last blocks."""
    root = Node(Piece((), nn.Identity(), ()))
    for number, pieces in enumerate(networks):
        node = root
        for piece in pieces[:-1]:
            node = node.children.setdefault(piece.placed, Node(piece))
            node.numbers.append(number)
        node.ends[number] = pieces[-1].module
    return root


def _run(node: Node, x_BCHW: Tensor, finish: Finish) -> None:
    """Run a node and all behind it; autograd's graph is cut at forks alone."""
    x_BCHW = _forward(node, x_BCHW)
    while len(node.children) == 1 and not node.ends:
        (node,) = node.children.values()
        x_BCHW = _forward(node, x_BCHW)
    branches = node.branches()
    # Without a fork, autograd goes back through all of it at once.
    fork_BCHW = x_BCHW if len(branches) == 1 else x_BCHW.detach().requires_grad_()
    for number, child in branches:
        if child is None:
            finish(number, node.ends[number], fork_BCHW).backward()
        else:
            _run(child, fork_BCHW, finish)
    if fork_BCHW is not x_BCHW:
        x_BCHW.backward(fork_BCHW.grad)


def _forward(node: Node, x_BCHW: Tensor) -> Tensor:
    with moving(node.piece.module, len(node.numbers)):
        result: Tensor = node.piece.module(x_BCHW)
    return result


@contextmanager
def moving(module: nn.Module, times: int) -> Iterator[None]:
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
