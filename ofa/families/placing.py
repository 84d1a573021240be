"""Placing blocks one after the other: the one walk over a network's geometry."""

from __future__ import annotations

from ofa.blocks import Block, PlacedBlock
from ofa.resolution import Resolution, sides

__all__ = ["Placer"]


class Placer:
    """Collects blocks and keeps account of the image size before the next one.

    Args:
        resolution: of the network's input.
    """

    def __init__(self, resolution: Resolution) -> None:
        self._size, _ = sides(resolution)
        self._placed: list[PlacedBlock] = []

    def place(self, name: str, block: Block) -> None:
        """Put ``block`` after what is there, at the dotted place ``name``."""
        self._placed.append(PlacedBlock(name, block, self._size))
        self._size = block.output_size(self._size)

    @property
    def placed(self) -> tuple[PlacedBlock, ...]:
        """All blocks so far, from the input to the output."""
        return tuple(self._placed)
