"""Sums over the blocks of networks by table look-ups: a space compiled to arrays, for a million and more encoded archs per second.

Shape suffixes: N archs, C columns of an encoded arch, T tables, U blocks of the space. Values of blocks may have leading axes (...).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ofa.arrays import Floats, Rows
from ofa.inventory import Inventory, Place
from ofa.space import Space

__all__ = ["AdditiveTable"]


_MOST_ENTRIES = 1 << 15
"""Largest table, in entries; places are joined up to this size. Fewer tables need fewer look-ups, but large ones exceed the cache."""
_CHUNK = 1 << 11
"""Most archs per chunk, so that intermediate results stay in the cache."""
_MOST_PRODUCTS = 1 << 20
"""Largest matrix product, in multiplications: above it OpenBLAS uses threads, which gain nothing here and spin on a busy machine."""


class AdditiveTable:
    """Combines one value per block into a value of the network, by sum or maximum.

    The places of a space are joined into a few tables, each indexed by all columns that decide the blocks at its places. An index is a
    sum of columns times strides, so all indices are one matrix product; it is exact in float32, as no table has 2^24 entries.

    Args:
        space: of the archs.
        inventory: of the space.
        values_U: value of each of ``inventory.blocks``, NaN if unknown: [U], or [..., U] for several values at once.
        combine: ``np.add``, or ``np.maximum`` for values of at least 0.
    """

    def __init__(self, space: Space, inventory: Inventory, values_U: Floats, *, combine: np.ufunc = np.add) -> None:
        self._cardinalities = [len(gene.values) for gene in space.columns]
        self._combine = combine
        no_block = np.zeros((*values_U.shape[:-1], 1))  # last, because NOTHING is index -1
        known_U = np.concatenate([values_U, no_block], axis=-1)
        joined = [self._join(group, known_U) for group in self._groups(inventory.places)]
        self._tables = [table for _, table in joined]
        self._strides_CT = np.stack([strides_C for strides_C, _ in joined], axis=1).astype(np.float32)
        self._chunk = max(1, min(_CHUNK, _MOST_PRODUCTS // self._strides_CT.size))

    def __call__(self, rows_NC: Rows) -> Floats:
        """The combined values of encoded archs.

        Args:
            rows_NC: as from ``Space.encode``; the columns of skipped blocks are ignored.

        Returns:
            [N], or [..., N]; NaN for a network with a block whose value is unknown.
        """
        rows_NC = np.asarray(rows_NC)
        sums_N = np.zeros((*self._tables[0].shape[:-1], len(rows_NC)))
        # One buffer for all chunks: page faults of a new allocation per chunk take longer than all the arithmetic.
        columns_NC = np.empty((min(len(rows_NC), self._chunk), rows_NC.shape[1]), dtype=np.float32)
        for start in range(0, len(rows_NC), self._chunk):
            chunk_NC = rows_NC[start : start + self._chunk]
            np.copyto(columns_NC[: len(chunk_NC)], chunk_NC, casting="unsafe")
            indices_TN = (columns_NC[: len(chunk_NC)] @ self._strides_CT).T.astype(np.intp, order="C")
            part_N = sums_N[..., start : start + self._chunk]
            for table, index_N in zip(self._tables, indices_TN, strict=True):
                self._combine(part_N, table.take(index_N, axis=-1), out=part_N)
        return sums_N

    def _groups(self, places: Sequence[Place]) -> list[list[Place]]:
        """Consecutive places, grouped so that the columns of a group have at most ``_MOST_ENTRIES`` combinations."""
        groups: list[list[Place]] = []
        for place in places:
            if groups and self._entries([*groups[-1], place]) <= _MOST_ENTRIES:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _entries(self, places: Sequence[Place]) -> int:
        return math.prod(self._cardinalities[column] for column in _columns(places))

    def _join(self, places: Sequence[Place], known_U: Floats) -> tuple[Floats, Floats]:
        """Strides of all columns [C], 0 for columns that do not index the table, and the table."""
        columns = _columns(places)
        shape, front = [self._cardinalities[column] for column in columns], known_U.shape[:-1]
        table = np.zeros((*front, *shape))
        for place in places:
            own_shape = [size if column in place.columns else 1 for column, size in zip(columns, shape, strict=True)]
            self._combine(table, known_U[..., place.blocks].reshape((*front, *own_shape)), out=table)
        strides_C = np.zeros(len(self._cardinalities))
        strides_C[columns] = [stride // table.itemsize for stride in table.strides[len(front) :]]
        return strides_C, table.reshape(*front, -1)


def _columns(places: Sequence[Place]) -> list[int]:
    return sorted({column for place in places for column in place.columns})
