"""Pareto local search: the neighbours of the front's networks are evaluated until none improves the front or a limit is reached.

After Paquete, Chiarandini and Stützle ("Pareto local optimum sets in the biobjective traveling salesman problem", 2004). Random search
finds the region but wastes evaluations on the last few genes, where a whole neighbourhood is cheap.

Shape suffixes: N networks, C columns of an encoded arch, K objectives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa.arrays import Floats, Integers, Rows
from ofa.progress import Progress, silent
from ofa.space import Space
from search.evolution.archive import Archive
from search.evolution.pareto import non_dominated
from search.precisions.space import PrecisionSpace

__all__ = ["best_of", "extreme", "improve", "look_at_other_precisions"]

_MEMBERS_AT_ONCE = 16
"""Networks whose neighbours are evaluated before the front is updated: enough for efficient arrays, few enough that little is spent on
neighbours of networks that soon leave the front."""


def improve(archive: Archive, *, limit: int, progress: Progress = silent) -> int:
    """Evaluate neighbours of the archive's best networks until no neighbour improves them.

    The best networks are the non-dominated ones within the budget, by accuracy and the problem's objectives. While no network keeps the
    budget, it is the network nearest to the budget.

    Args:
        archive: the evaluated networks; it grows.
        limit: upper limit of the number of evaluations.
        progress: receives the number of evaluated networks.

    Returns:
        The number of evaluated networks.

    Raises:
        OfaError: as ``Archive.evaluate``.
    """
    start = len(archive)
    explored: set[int] = set()
    while (left := limit - (len(archive) - start)) > 0:
        members = [index for index in best_of(archive).tolist() if index not in explored]
        if not members:
            break
        # Evenly spaced along the front, so that an early limit has improved all of it.
        chosen = [members[i] for i in np.linspace(0, len(members) - 1, min(len(members), _MEMBERS_AT_ONCE)).astype(int)]
        rows_NC = archive.problem.space.neighbour_rows(archive.rows[chosen])
        explored.update(chosen)
        archive.evaluate(rows_NC[archive.fresh(rows_NC)][:left])
        progress(len(archive) - start, limit, f"{len(members) - len(chosen)} networks whose neighbours are unknown")
    return len(archive) - start


def look_at_other_precisions(archive: Archive) -> None:
    """Evaluate the best networks in all other precisions of the search, so that better precisions replace them on the front.

    Does nothing if precision is no gene. Errors as ``Archive.evaluate``.
    """
    space = archive.problem.space
    if isinstance(space, PrecisionSpace):
        best_NC = archive.rows[best_of(archive)]
        for precision in space.precisions:
            archive.evaluate(space.rows_at(best_NC, precision))


def extreme(space: Space, cost: Callable[[Rows], Floats], *, largest: bool = False, descend: bool = True) -> tuple[float, Rows]:
    """The smallest (or largest) value of a cost in a space, and the row [1, C] of a network that has it.

    Found by coordinate descent over single genes from the smallest (or largest) network. This is exact if the cost of each block depends on
    its own genes only.

    Args:
        space: the space.
        cost: cost function of encoded archs: [N, C] to [N].
        largest: whether to find the largest value.
        descend: False skips the descent and takes the smallest (or largest) network, for costs that are slow to evaluate.
    """
    sign = -1.0 if largest else 1.0
    row_1C = space.encode_all([space.largest() if largest else space.smallest()])
    value = sign * float(cost(row_1C)[0])
    while descend:
        around_NC = space.neighbour_rows(row_1C)
        values_N = sign * cost(around_NC)
        best = int(np.argmin(values_N))
        if values_N[best] >= value:
            break
        value, row_1C = float(values_N[best]), around_NC[best : best + 1]
    return sign * value, row_1C


def best_of(archive: Archive) -> Integers:
    """Archive indices of the non-dominated networks within the budget, ascending in the first objective; else of the nearest network."""
    problem = archive.problem
    allowed = np.flatnonzero(archive.allowed)
    if not len(allowed):
        return np.array([int(np.argmin(archive.excess))], dtype=np.intp)
    judged_NK = np.concatenate([-archive.accuracies[allowed, None], archive.costs(problem.costs)[allowed]], axis=1)
    best = allowed[non_dominated(judged_NK)]
    order = np.argsort(archive.costs(problem.costs)[best, 0] if problem.costs else archive.accuracies[best], kind="stable")
    return np.asarray(best[order], dtype=np.intp)
