"""Non-dominated rows of an array of costs.

Shapes: N rows (networks), K costs, all to be minimized.
"""

from __future__ import annotations

import numpy as np

from ofa.arrays import Bools, Floats

__all__ = ["non_dominated"]


_BLOCK = 512
"""Rows compared at once: large enough for numpy's speed, small enough that the comparison stays in the cache."""


def non_dominated(costs_NK: Floats) -> Bools:
    """Mark the rows that no other row dominates; a row dominates another if it is at most as large in every cost and smaller in one.

    Of rows with equal costs only the first is kept.

    Args:
        costs_NK: finite numbers to be minimized; negate numbers that are to be maximized.

    Returns:
        True for non-dominated rows; [N].
    """
    count = len(costs_NK)
    keep = np.zeros(count, dtype=np.bool_)
    if count == 0:
        return keep
    # In lexicographic order a row can only be dominated by one before it. The sort is stable, so of equal rows the first leads.
    order = np.lexsort(costs_NK.T[::-1])
    ordered = costs_NK[order]
    keep[order] = _leading(ordered[:, 1]) if costs_NK.shape[1] == 2 else _by_blocks(ordered)
    return keep


def _leading(second_N: Floats) -> Bools:
    """For two costs, with the first ascending: a row stays if its second cost is below all before it."""
    best = np.minimum.accumulate(second_N)
    return np.concatenate([[True], second_N[1:] < best[:-1]])


def _by_blocks(ordered_NK: Floats) -> Bools:
    """For any number of costs: compare each block of rows with the rows kept so far, and then with itself."""
    keep = np.zeros(len(ordered_NK), dtype=np.bool_)
    front = ordered_NK[:0]
    for start in range(0, len(ordered_NK), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(ordered_NK)))
        for part in np.array_split(front, max(1, len(front) // _BLOCK)):
            rows = rows[~_covered(part, ordered_NK[rows])]
        block = ordered_NK[rows]
        earlier = np.tri(len(block), k=-1, dtype=np.bool_)
        rows = rows[~(_at_most(block, block) & earlier).any(axis=1)]
        keep[rows] = True
        front = np.concatenate([front, ordered_NK[rows]])
    return keep


def _covered(front_FK: Floats, rows_RK: Floats) -> Bools:
    """For each row, whether some row of the front is at most as large in every cost; [R]."""
    return np.asarray(_at_most(front_FK, rows_RK).any(axis=1))


def _at_most(front_FK: Floats, rows_RK: Floats) -> Bools:
    """[R, F]: whether row f of the front is at most as large as row r in every cost."""
    result = np.ones((len(rows_RK), len(front_FK)), dtype=np.bool_)
    for front_F, rows_R in zip(front_FK.T, rows_RK.T, strict=True):
        result &= front_F[None, :] <= rows_R[:, None]
    return result
