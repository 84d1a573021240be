"""A sum over the blocks of a network as a few look-ups: a space compiled to arrays, for a million encoded archs a second and more.

Shape suffixes: N archs, C columns of an encoded arch, T tables, U blocks of the space. Values of blocks may have axes in front (...).
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
"""Of one table: places are joined up to this size. Fewer tables are fewer look-ups, but larger ones leave the processor's cache."""
_CHUNK = 1 << 11
"""Archs at a time at most, so that all that is computed of them stays in the cache."""
_MOST_PRODUCTS = 1 << 20
"""Of one product of matrices: above this OpenBLAS takes threads, which gain nothing here and wait for each other on a busy machine."""


class AdditiveTable:
    """Adds up a value of every block of a network.

    The places of a space are joined into a few tables, each indexed by all columns that decide what stands at its places. An index is a
    sum of columns times strides, so all of them are one product of matrices; it is exact in float32 as no table has 2^24 entries.

    Args:
        space: where the archs are from.
        inventory: of this space.
        values_U: the value of each of ``inventory.blocks``, NaN where it is unknown: [U], or [..., U] for several values at once.
        combine: how values of blocks make one of a network: ``np.add``, or ``np.maximum`` for values of 0 and more.
    """

    def __init__(self, space: Space, inventory: Inventory, values_U: Floats, *, combine: np.ufunc = np.add) -> None:
        self._cardinalities = [len(gene.values) for gene in space.columns]
        self._combine = combine
        no_block = np.zeros((*values_U.shape[:-1], 1))  # the last, which NOTHING finds by counting from the end
        known_U = np.concatenate([values_U, no_block], axis=-1)
        joined = [self._join(group, known_U) for group in self._groups(inventory.places)]
        self._tables = [table for _, table in joined]
        self._strides_CT = np.stack([strides_C for strides_C, _ in joined], axis=1).astype(np.float32)
        self._chunk = max(1, min(_CHUNK, _MOST_PRODUCTS // self._strides_CT.size))

    def __call__(self, rows_NC: Rows) -> Floats:
        """The sums [N], or [..., N], of encoded archs, as of ``Space.encode``; what the columns of skipped blocks hold does not matter.

        A sum with a block whose value is unknown is NaN.
        """
        rows_NC = np.asarray(rows_NC)
        sums_N = np.zeros((*self._tables[0].shape[:-1], len(rows_NC)))
        # Memory that is asked for anew at every chunk is mapped anew by the system, which takes longer than all the arithmetic.
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
        """Places in a row whose columns together have few enough combinations."""
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
        """Strides of all columns [C], 0 for those that do not matter, and the table that they index."""
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
