"""Pieces: the parts of a subnet that run one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ofa.blocks import PlacedBlock
from ofa.leaves import Leaf

__all__ = ["Piece"]


@dataclass(frozen=True)
class Piece:
    """A part of a subnet: a block, or several where more than one tensor is alive between them.

    Attributes:
        placed: the blocks and where they stand.
        module: computes it, of views.
        leaves: its parameters.
    """

    placed: tuple[PlacedBlock, ...]
    module: nn.Module
    leaves: tuple[Leaf, ...]

    @property
    def name(self) -> str:
        """The place of its last block."""
        return self.placed[-1].name
