"""Estimates the latencies of many networks of a space from a table.

Shape suffixes: N archs, C columns of an encoded arch, U blocks of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from latency_tables.info import TableInfo
from latency_tables.table import LatencyTable
from ofa.arch import Arch
from ofa.arrays import Floats, Integers, Rows
from ofa.blocks import Block, Shape
from ofa.cost import weight_bytes
from ofa.errors import ArchError, TableError
from ofa.families import lower
from ofa.inventory import inventory_of
from ofa.latency import Latency
from ofa.lookup import AdditiveTable
from ofa.space import Space

__all__ = ["Estimator"]


_SIDE_BY_SIDE = 128


class Estimator:
    """Estimates latencies of one space's archs: single archs block by block, many at once in arrays, which are compiled on first use.

    Args:
        space: the space of the archs.
        table: a table with their blocks.

    Raises:
        TableError: the table is of another space with this name.
    """

    def __init__(self, space: Space, table: LatencyTable) -> None:
        table.info.check_same(space, table.called)
        self.space = space
        self.table = table
        self._known: dict[tuple[Block, Shape], tuple[float, int]] = {}

    def __call__(self, arch: Arch) -> Latency:
        """The estimated latency of one network in ms, with its interval if the table is calibrated.

        Raises:
            ArchError: the arch is not of the space.
            TableError: blocks are missing; see ``LatencyTable.require``.
        """
        return self.table.corrected(*self.sums(arch))

    @property
    def device_name(self) -> str:
        """Name of the table's device."""
        return self.table.device_name

    @property
    def info(self) -> TableInfo:
        """Metadata of the table."""
        return self.table.info

    @property
    def is_measured(self) -> bool:
        """False: latencies are computed from the table."""
        return False

    @property
    def has_energy(self) -> bool:
        """Whether the table has energies of all blocks."""
        return bool(np.isfinite(self._block_energies).all())

    def sums(self, arch: Arch) -> tuple[float, int]:
        """Uncorrected sums over a network's blocks: latency in ms, and bytes of weights; errors as ``__call__``."""
        lowered = lower(self.space, arch)
        known = self._known
        if any((placed.block, placed.input) not in known for placed in lowered):
            self.table.require(self.space, lowered)
            known.update({(placed.block, placed.input): (self.table.latency_ms(placed), weight_bytes([placed])) for placed in lowered})
        latencies_ms, sizes = zip(*(known[placed.block, placed.input] for placed in lowered), strict=True)
        return sum(latencies_ms), sum(sizes)

    def latencies_ms(self, archs: Sequence[Arch]) -> Floats:
        """The estimated latencies of networks in ms; [N]. Errors as ``__call__``."""
        return np.array([self(arch).latency_ms for arch in archs], dtype=np.float64)

    def latencies_of_rows(self, rows_NC: Rows) -> Floats:
        """The estimated latencies of encoded archs (``Space.encode``) in ms; [N]. Genes of skipped blocks are ignored.

        Raises:
            ArchError: a row is not of the space.
            TableError: blocks are missing; see ``LatencyTable.require``.
        """
        rows_NC = _checked(self.space, rows_NC)
        correction = self.table.correction
        latencies_N = self._all_known(rows_NC, self._corrected_ms(rows_NC))
        if correction is None:
            return latencies_N
        # Most corrections are additive over blocks and compiled into the table, so they cost nothing here.
        beyond = correction.beyond_blocks(self._sum_bytes(rows_NC)) if correction.ms_per_weight_mib2 else 0.0
        return latencies_N + correction.intercept_ms + beyond

    def estimates_of_rows(self, rows_NC: Rows) -> tuple[Floats, Floats, Floats]:
        """Latencies and the lower and upper ends of their intervals in ms; [N] each. The three are equal if the table is not calibrated.

        Errors as ``latencies_of_rows``.
        """
        latencies_N = self.latencies_of_rows(rows_NC)
        correction = self.table.correction
        width = 0.0 if correction is None else correction.half_width
        return latencies_N, latencies_N * (1 - width), latencies_N * (1 + width)

    def energies_of_rows(self, rows_NC: Rows) -> Floats:
        """Energies of one call of encoded archs in mJ; [N]. They are sums over blocks, without correction.

        Raises:
            TableError: the table has no energies.
        """
        if not self.has_energy:
            raise TableError(
                f"energy needs a table with the energy of blocks, but the table of {self.device_name} has none; "
                "leave energy out, or build the table where RAPL or NVML can be read"
            )
        return self._sum_mj(_checked(self.space, rows_NC))

    def sums_of_rows(self, rows_NC: Rows) -> tuple[Floats, Integers]:
        """``sums`` of encoded archs: uncorrected latencies in ms [N], and bytes of weights [N]; errors as ``latencies_of_rows``."""
        rows_NC = _checked(self.space, rows_NC)
        return self._all_known(rows_NC, self._sum_ms(rows_NC)), self._sum_bytes(rows_NC).astype(np.int64)

    def _all_known(self, rows_NC: Rows, sums_N: Floats) -> Floats:
        unknown = np.flatnonzero(np.isnan(sums_N))
        if unknown.size:
            self.table.require(self.space, lower(self.space, self.space.decode(rows_NC[unknown[0]].tolist())))
        return sums_N

    @cached_property
    def _corrected_ms(self) -> AdditiveTable:
        """Table of each block's contribution to the corrected latency, so that the correction costs nothing."""
        correction = self.table.correction
        return self._sum_ms if correction is None else self._compiled(correction.of_block(self._block_ms, self._block_bytes))

    @cached_property
    def _sum_ms(self) -> AdditiveTable:
        return self._compiled(self._block_ms)

    @cached_property
    def _sum_bytes(self) -> AdditiveTable:
        return self._compiled(self._block_bytes)

    @cached_property
    def _block_ms(self) -> Floats:
        blocks = inventory_of(self.space).blocks
        return np.array([self.table.latency_ms(placed) if placed in self.table else np.nan for placed in blocks], dtype=np.float64)

    @cached_property
    def _sum_mj(self) -> AdditiveTable:
        return self._compiled(self._block_energies)

    @cached_property
    def _block_energies(self) -> Floats:
        blocks = inventory_of(self.space).blocks
        return np.array([self.table.energy_mj(placed) if placed in self.table else np.nan for placed in blocks], dtype=np.float64)

    @cached_property
    def _block_bytes(self) -> Floats:
        return np.array([weight_bytes([placed]) for placed in inventory_of(self.space).blocks], dtype=np.float64)

    def _compiled(self, values_U: Floats) -> AdditiveTable:
        return AdditiveTable(self.space, inventory_of(self.space), values_U)


def _checked(space: Space, rows: Rows) -> Rows:
    """The rows as an array, checked: an index outside its gene's values would silently look up another network's latency.

    Raises:
        ArchError: a row is not of the space.
    """
    rows_NC = np.asarray(rows)
    if rows_NC.size == 0:
        return np.empty((0, len(space.columns)), dtype=np.int8)
    if rows_NC.ndim != 2 or rows_NC.dtype.kind not in "iu":
        raise ArchError(
            f"encoded archs must be a matrix of integers, one row per arch, but got {rows_NC.dtype} of shape {rows_NC.shape}; "
            "make rows with Space.encode"
        )
    values_C = np.array([len(gene.values) for gene in space.columns])
    other_length = rows_NC.shape[1] != len(values_C)
    if other_length or (_highest(rows_NC) >= values_C).any():
        first = 0 if other_length else int(((rows_NC < 0) | (rows_NC >= values_C)).any(axis=1).argmax())
        space.decode(rows_NC[first].tolist())  # raises an error that names the wrong gene
    return rows_NC


def _highest(rows_NC: Rows) -> Rows:
    """The maximum of each column [C], with negative values above all others (as unsigned integers)."""
    unsigned_NC = np.ascontiguousarray(rows_NC).view(f"u{rows_NC.dtype.itemsize}")
    # numpy reduces row by row, and rows are short: joining many rows into one is several times as fast.
    whole = len(rows_NC) // _SIDE_BY_SIDE * _SIDE_BY_SIDE
    wide = unsigned_NC[:whole].reshape(-1, _SIDE_BY_SIDE * rows_NC.shape[1]).max(axis=0, initial=0)
    highest_C: Rows = np.concatenate([wide.reshape(_SIDE_BY_SIDE, -1), unsigned_NC[whole:]]).max(axis=0)
    return highest_C
