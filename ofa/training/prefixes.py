"""Computes the shared leading blocks (prefix) of a step's subnets once.

All networks of a space share their stem; the fewer choices are open, the more of the following blocks they share. The blocks of a
step's subnets form a prefix tree, which is walked depth-first: a block runs forward once for all subnets behind it, and backward once on
the sum of their gradients. Backward is linear, so the gradients equal those of separate passes up to rounding. Only one path of the
tree is in memory at a time, as with one subnet.

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
"""Maps a network's number, its last module and that module's input to the loss, a scalar to differentiate."""


def run_together(networks: Sequence[Sequence[Piece]], x_BCHW: Tensor, finish: Finish) -> None:
    """Forward and backward through all networks; gradients accumulate in their parameters.

    Running statistics are updated as in separate passes in this order: a batch norm that serves k networks makes k updates at once. The
    last block, the classifier with its dropout, is never shared.

    Args:
        networks: the pieces of each network, in training mode.
        x_BCHW: the input images of all networks.
        finish: called once for each network, the first network first; networks that share blocks follow each other.
    """
    for child in tree(networks).children.values():
        _run(child, x_BCHW, finish)


@dataclass(eq=False)
class Node:
    """A block in the tree of several networks.

    Attributes:
        piece: the block.
        numbers: numbers of the networks that contain it, in ascending order.
        children: the blocks that follow it.
        ends: the last modules that follow it, by number of network.
    """

    piece: Piece
    numbers: list[int] = field(default_factory=list)
    children: dict[tuple[PlacedBlock, ...], Node] = field(default_factory=dict)
    ends: dict[int, nn.Module] = field(default_factory=dict)

    def branches(self) -> list[tuple[int, Node | None]]:
        """What follows, in the order of networks: (number, None) of a network that ends here, or (first number, child) of a child."""
        following: list[tuple[int, Node | None]] = [(number, None) for number in self.ends]
        following += [(child.numbers[0], child) for child in self.children.values()]
        return sorted(following, key=lambda branch: branch[0])


def tree(networks: Sequence[Sequence[Piece]]) -> Node:
    """The root (itself no block) of the prefix tree of networks, without their last blocks."""
    root = Node(Piece((), nn.Identity(), ()))
    for number, pieces in enumerate(networks):
        node = root
        for piece in pieces[:-1]:
            node = node.children.setdefault(piece.placed, Node(piece))
            node.numbers.append(number)
        node.ends[number] = pieces[-1].module
    return root


def _run(node: Node, x_BCHW: Tensor, finish: Finish) -> None:
    """Run a node and its descendants; autograd's graph is cut only at forks."""
    x_BCHW = _forward(node, x_BCHW)
    while len(node.children) == 1 and not node.ends:
        (node,) = node.children.values()
        x_BCHW = _forward(node, x_BCHW)
    branches = node.branches()
    # Without a fork, one backward pass goes through the whole path.
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
    """Let one forward pass update running statistics of batch norms as far as ``times`` passes over the same images would."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)] if times > 1 else []
    momenta = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = None if momentum is None else 1 - (1 - momentum) ** times
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
