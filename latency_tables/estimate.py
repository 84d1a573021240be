"""The latency of many networks of a space from a table.

Shape suffixes: N archs, C columns of an encoded arch, U blocks of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from latency_tables.additive import AdditiveTable
from latency_tables.correction import Estimate
from latency_tables.inventory import Inventory, inventory_of
from latency_tables.table import LatencyTable
from ofa.arch import Arch
from ofa.blocks import Block
from ofa.cost import weight_bytes
from ofa.families import lower
from ofa.space import Space

__all__ = ["Estimator"]

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Rows = np.ndarray[tuple[int, ...], np.dtype[Any]]


class Estimator:
    """Estimates archs of one space: single ones block by block, many at once by arrays that are compiled when first asked for.

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

    def sums(self, arch: Arch) -> tuple[float, int]:
        """Sums over the network's blocks: their latencies in ms, not corrected, and the bytes of their weights; errors as of calling it."""
        lowered = lower(self.space, arch)
        known = self._known
        if any((placed.block, placed.input_size) not in known for placed in lowered):
            self.table.require(self.space, lowered)
            known.update({(placed.block, placed.input_size): (self.table.latency_ms(placed), weight_bytes([placed])) for placed in lowered})
        latencies_ms, sizes = zip(*(known[placed.block, placed.input_size] for placed in lowered), strict=True)
        return sum(latencies_ms), sum(sizes)

    def latencies_ms(self, archs: Sequence[Arch]) -> Floats:
        """The estimated latencies [N] of many networks; errors as of calling it."""
        return np.array([self(arch).latency_ms for arch in archs], dtype=np.float64)

    def latencies_of_rows(self, rows_NC: Rows) -> Floats:
        """The estimated latencies [N] in ms of encoded archs (``Space.encode``); what the columns of skipped blocks hold does not matter.

        Raises:
            TableError: blocks are missing; see ``LatencyTable.require``.
        """
        rows_NC = np.asarray(rows_NC)
        if rows_NC.ndim != 2:
            rows_NC = rows_NC.reshape(-1, len(self.space.columns))
        correction = self.table.correction
        latencies_N = self._corrected(rows_NC) + (0.0 if correction is None else correction.intercept_ms)
        unknown = np.flatnonzero(np.isnan(latencies_N))
        if unknown.size:
            self.table.require(self.space, lower(self.space, self.space.decode(rows_NC[unknown[0]].tolist())))
        return latencies_N

    def estimates_of_rows(self, rows_NC: Rows) -> tuple[Floats, Floats, Floats]:
        """Latencies, and the low and high ends of their intervals, in ms, each [N]; NaN ends where the table is not calibrated."""
        latencies_N = self.latencies_of_rows(rows_NC)
        correction = self.table.correction
        width = np.nan if correction is None else correction.half_width
        return latencies_N, latencies_N * (1 - width), latencies_N * (1 + width)

    @cached_property
    def _corrected(self) -> AdditiveTable:
        """Sums of what each block adds to a corrected latency, so that the correction costs nothing."""
        inventory: Inventory = inventory_of(self.space)
        ms_U = np.array([self.table.latency_ms(placed) if placed in self.table else np.nan for placed in inventory.blocks])
        if self.table.correction is not None:
            ms_U = self.table.correction.of_block(ms_U, np.array([weight_bytes([placed]) for placed in inventory.blocks]))
        return AdditiveTable(self.space, inventory, ms_U)
