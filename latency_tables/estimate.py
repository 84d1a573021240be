"""The latency of many networks of a space from a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latency_tables.correction import Estimate
from latency_tables.table import LatencyTable
from ofa.arch import Arch
from ofa.blocks import Block
from ofa.families import lower
from ofa.space import Space

__all__ = ["Estimator"]

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Estimator:
    """Estimates archs of one space; blocks are looked up once.

    Args:
        space: where the archs are from.
        table: must hold their blocks.
    """

    def __init__(self, space: Space, table: LatencyTable) -> None:
        self.space = space
        self.table = table
        self._known: dict[tuple[Block, int], float] = {}

    def __call__(self, arch: Arch) -> Estimate:
        """The estimate of one network.

        Raises:
            ArchError: the arch is not of the space.
            TableError: blocks are missing; see ``LatencyTable.require``.
        """
        return self.table.corrected(self.sum_ms(arch))

    def latencies_ms(self, archs: Sequence[Arch]) -> Floats:
        """The estimated latencies of many networks; errors as of calling it."""
        return np.array([self(arch).latency_ms for arch in archs], dtype=np.float64)

    def sum_ms(self, arch: Arch) -> float:
        """The sum over the network's blocks, not corrected; errors as of calling it."""
        lowered = lower(self.space, arch)
        try:
            return sum(self._known[placed.block, placed.input_size] for placed in lowered)
        except KeyError:
            self.table.require(self.space, lowered)
            self._known.update({(placed.block, placed.input_size): self.table.latency_ms(placed) for placed in lowered})
            return sum(self._known[placed.block, placed.input_size] for placed in lowered)
