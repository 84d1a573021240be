"""Local improvement of a front: the neighbours of its networks are evaluated, until none is better or a limit is reached.

This is the Pareto local search of Paquete, Chiarandini and Stützle ("Pareto local optimum sets in the biobjective traveling
salesman problem", 2004). Chance is good at finding the region, and wasteful at the last few genes; there whole neighbourhoods are cheap.

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
"""Networks whose neighbours are evaluated before the front is looked at again: many enough for arrays, few enough that the
neighbours of networks that are soon beaten are not looked at."""


def improve(archive: Archive, *, limit: int, progress: Progress = silent) -> int:
    """Evaluate neighbours of the best networks of ``archive`` until they are better than all of theirs.

    The best are those that keep the budget and are not beaten in accuracy and the problem's objectives; while no network
    keeps the budget, the one that is nearest to it.

    Args:
        archive: what was evaluated so far; grows.
        limit: most networks to evaluate.
        progress: told how many are evaluated.

    Returns:
        The number of networks evaluated.

    Raises:
        OfaError: as evaluating does.
    """
    start = len(archive)
    explored: set[int] = set()
    while (left := limit - (len(archive) - start)) > 0:
        members = [index for index in best_of(archive).tolist() if index not in explored]
        if not members:
            break
        # Evenly along the front, so that a limit that is reached early has served all of it.
        chosen = [members[i] for i in np.linspace(0, len(members) - 1, min(len(members), _MEMBERS_AT_ONCE)).astype(int)]
        rows_NC = archive.problem.space.neighbour_rows(archive.rows[chosen])
        explored.update(chosen)
        archive.evaluate(rows_NC[archive.fresh(rows_NC)][:left])
        progress(len(archive) - start, limit, f"{len(members) - len(chosen)} networks whose neighbours are unknown")
    return len(archive) - start


def look_at_other_precisions(archive: Archive) -> None:
    """Evaluate the best networks in all other precisions of the search, so that none of them is on the front that is worse than another.

    Where precision is no gene there is nothing to do. Errors as evaluating.
    """
    space = archive.problem.space
    if isinstance(space, PrecisionSpace):
        best_NC = archive.rows[best_of(archive)]
        for precision in space.precisions:
            archive.evaluate(space.rows_at(best_NC, precision))


def extreme(space: Space, cost: Callable[[Rows], Floats], *, largest: bool = False, descend: bool = True) -> tuple[float, Rows]:
    """The least (or largest) value of a cost in a space, and the row [1, C] of a network that has it.

    Found by descent over changes of one gene from the smallest (or largest) network: exact where a block's cost depends on its own
    genes alone.

    Args:
        space: where to look.
        cost: of encoded archs [N, C]; [N].
        largest: whether to look for the largest value.
        descend: False takes the smallest (or largest) network as it is, for costs that take long to find.
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
    """The indices of the networks that nothing beats within the budget, ascending in the first objective; else of the nearest to it."""
    problem = archive.problem
    allowed = np.flatnonzero(archive.allowed)
    if not len(allowed):
        return np.array([int(np.argmin(archive.excess))], dtype=np.intp)
    judged_NK = np.concatenate([-archive.accuracies[allowed, None], archive.costs(problem.costs)[allowed]], axis=1)
    best = allowed[non_dominated(judged_NK)]
    order = np.argsort(archive.costs(problem.costs)[best, 0] if problem.costs else archive.accuracies[best], kind="stable")
    return np.asarray(best[order], dtype=np.intp)
