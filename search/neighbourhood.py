"""Local improvement of a front: the neighbours of its networks are evaluated, until none is better or a limit is reached.

This is the Pareto local search of Paquete, Chiarandini and Stützle ("Pareto local optimum sets in the biobjective traveling
salesman problem", 2004). A sampler is good at finding the region, and wasteful at its last few genes; there whole
neighbourhoods cost less than the sampler's thoughts about one network.
"""

from __future__ import annotations

import numpy as np

from ofa.arch import Arch
from ofa.progress import Progress, silent
from search.front import staircase
from search.problem import Archive

__all__ = ["improve"]

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
    explored: set[Arch] = set()
    while (left := limit - (len(archive) - start)) > 0:
        members = [arch for arch in _best(archive) if arch not in explored]
        if not members:
            break
        # Evenly along the front, so that a limit that is reached early has served all of it.
        chosen = [members[i] for i in np.linspace(0, len(members) - 1, min(len(members), _MEMBERS_AT_ONCE)).astype(int)]
        new = list(dict.fromkeys(n for arch in chosen for n in archive.problem.space.neighbours(arch) if n not in archive))
        explored.update(chosen)
        archive.evaluate(new[:left])
        progress(len(archive) - start, limit, f"{len(members) - len(chosen)} networks whose neighbours are unknown")
    return len(archive) - start


def _best(archive: Archive) -> list[Arch]:
    columns, archs, problem = archive.columns(), archive.archs, archive.problem
    allowed = np.flatnonzero(problem.budget.allows(columns))
    if not len(allowed):
        excess = np.max(list(problem.budget.violations(columns).values()), axis=0)
        return [archs[int(np.argmin(excess))]]
    rows = allowed[staircase({name: column[allowed] for name, column in columns.items()}, problem.objectives)]
    return [archs[i] for i in rows[np.argsort(columns[problem.objectives[0]][rows])]]
