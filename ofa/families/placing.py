"""Placing blocks in sequence, while tracking the shapes between them."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock, Shape
from ofa.resolution import sides
from ofa.space import Space

__all__ = ["Placer", "input_shape"]


def input_shape(space: Space, arch: Arch) -> Shape:
    """The shape of an input image of ``arch``: the space's channels, the arch's height and width."""
    return Shape(space.in_channels, *sides(arch.resolution))


class Placer:
    """Collects the blocks of a network and tracks the input shape of the next one.

    Args:
        space: of the network.
        arch: of the network.
    """

    def __init__(self, space: Space, arch: Arch) -> None:
        self._shape = input_shape(space, arch)
        self._given: dict[str, Shape] = {}
        self._placed: list[PlacedBlock] = []

    def place(self, name: str, block: Block, inputs: Sequence[str] = ()) -> None:
        """Add a block.

        Args:
            name: dotted place of the block.
            block: the block.
            inputs: places whose outputs are added to form its input; by default its input is the output of the previous block.
        """
        shape = self._given[inputs[0]] if inputs else self._shape
        self._placed.append(PlacedBlock(name, block, shape, tuple(inputs)))
        self._shape = self._given[name] = block.output(shape)

    @property
    def placed(self) -> tuple[PlacedBlock, ...]:
        """All blocks so far, from the input to the output."""
        return tuple(self._placed)
