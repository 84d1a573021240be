"""Placing blocks one after the other: the one walk over a network's geometry."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock, Shape
from ofa.resolution import sides
from ofa.space import Space

__all__ = ["Placer", "input_shape"]


def input_shape(space: Space, arch: Arch) -> Shape:
    """The shape of an image that ``arch`` takes: the channels of the space, the arch's height and width."""
    return Shape(space.in_channels, *sides(arch.resolution))


class Placer:
    """Collects blocks and keeps account of the shape before the next one.

    Args:
        space: of the network.
        arch: whose blocks are placed.
    """

    def __init__(self, space: Space, arch: Arch) -> None:
        self._shape = input_shape(space, arch)
        self._given: dict[str, Shape] = {}
        self._placed: list[PlacedBlock] = []

    def place(self, name: str, block: Block, inputs: Sequence[str] = ()) -> None:
        """Put ``block`` at the dotted place ``name``, after what is there or on the sum of what the places ``inputs`` give."""
        shape = self._given[inputs[0]] if inputs else self._shape
        self._placed.append(PlacedBlock(name, block, shape, tuple(inputs)))
        self._shape = self._given[name] = block.output(shape)

    @property
    def placed(self) -> tuple[PlacedBlock, ...]:
        """All blocks so far, from the input to the output."""
        return tuple(self._placed)
