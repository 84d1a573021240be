"""The latency of many networks of a space from a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latency_tables.correction import Estimate
from latency_tables.table import LatencyTable
from ofa.arch import Arch
from ofa.blocks import Block
from ofa.cost import weight_bytes
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
        self._known: dict[tuple[Block, int], tuple[float, int]] = {}

    def __call__(self, arch: Arch) -> Estimate:
        """The estimate of one network.

        Raises:
            ArchError: the arch is not of the space.
            TableError: blocks are missing; see ``LatencyTable.require``.
        """
        return self.table.corrected(*self.sums(arch))

    def latencies_ms(self, archs: Sequence[Arch]) -> Floats:
        """The estimated latencies of many networks; errors as of calling it."""
        return np.array([self(arch).latency_ms for arch in archs], dtype=np.float64)

    def sums(self, arch: Arch) -> tuple[float, int]:
        """Sums over the network's blocks: their latencies in ms, not corrected, and the bytes of their weights; errors as of calling it."""
        lowered = lower(self.space, arch)
        known = self._known
        if any((placed.block, placed.input_size) not in known for placed in lowered):
            self.table.require(self.space, lowered)
            known.update({(placed.block, placed.input_size): (self.table.latency_ms(placed), weight_bytes([placed])) for placed in lowered})
        latencies_ms, sizes = zip(*(known[placed.block, placed.input_size] for placed in lowered), strict=True)
        return sum(latencies_ms), sum(sizes)
