"""Pieces: the consecutive parts of a subnet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ofa.blocks import PlacedBlock
from ofa.leaves import Leaf

__all__ = ["Piece"]


@dataclass(frozen=True)
class Piece:
    """A part of a subnet with one input and one output: a block, or several blocks if more than one tensor is alive between them.

    Attributes:
        placed: the blocks with their places.
        module: computes the piece; its parameters view the store.
        leaves: the parameters of the module.
    """

    placed: tuple[PlacedBlock, ...]
    module: nn.Module
    leaves: tuple[Leaf, ...]

    @property
    def name(self) -> str:
        """The place of the piece's last block."""
        return self.placed[-1].name
