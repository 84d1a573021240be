"""Evolution in arrays: an island model, in which each island has a budget of its own, with thousands of children a second.

OFA's evolutionary search (Cai et al., ICLR 2020, section 3.4: crossover and mutation of the best networks within the budget) with three
differences. Children are made and evaluated as arrays. Networks in the archive are not evaluated again. Separate islands (Whitley, Rana and
Heckendorn, 1999) replace the single population, because accuracy has local optima and one population converges to the first that it meets.

Shape suffixes: N networks, C columns of an encoded arch, I islands, K objectives, M members.
"""

from __future__ import annotations

import numpy as np

from ofa.arrays import Floats, Integers, Rows
from ofa.space import ROW_DTYPE, Space
from search.budget import Columns, excess_of
from search.evolution.archive import Archive

__all__ = ["Islands", "sample_of_all_sizes", "targets_along_front"]

MEMBERS = 25
_GENERATION = 512
"""Children per generation: enough for efficient arrays, few enough that the next generation profits from them."""
_CROSSED = 0.7
_MUTATIONS = 1.5
"""Mean number of mutated genes of a child."""
_SHARE = 0.1
"""Share of the first sample that each island draws its founders from, so that islands begin differently."""
_PATIENCE = 40
"""Restart an island after so many evaluations per member without a better best network."""
_SETTLED = 0.5
"""Share of restarted islands that begin with members of other islands instead of founders."""
_FRUITLESS = 30
"""Stop after so many generations without any new network."""


class Islands:
    """Islands of networks that evolve, each within cost targets of its own.

    Args:
        archive: collects all evaluated networks.
        targets_IK: upper limits of each objective by island, in addition to the problem's budget.
        founders: archive indices from which the islands draw their first members.
        rng: draws parents and genes.
        members: number of networks that an island keeps.
    """

    def __init__(
        self, archive: Archive, targets_IK: Floats, founders: Integers, rng: np.random.Generator, *, members: int = MEMBERS
    ) -> None:
        self._archive = archive
        self._space: Space = archive.problem.space
        self._targets_IK = targets_IK
        self._rng = rng
        self._members = members
        self._pool: Integers = np.empty(0, dtype=np.intp)
        self._island: Integers = np.empty(0, dtype=np.intp)
        self._score: Floats = np.empty(0)
        self._founders = founders
        self._idle_I = np.zeros(len(targets_IK), dtype=np.intp)
        for island in range(len(targets_IK)):
            self._begin(island, self._founding())

    def __len__(self) -> int:
        return len(self._targets_IK)

    def settle(self, index_N: Integers, island_N: Integers) -> None:
        """Add networks of the archive to islands; each island keeps its best ``members``."""
        self._pool = np.concatenate([self._pool, index_N])
        self._island = np.concatenate([self._island, island_N])
        self._score = np.concatenate([self._score, self._scores(index_N, island_N)])
        order = np.lexsort((-self._score, self._island))
        sorted_N = self._island[order]
        rank_N = np.arange(len(order)) - np.searchsorted(sorted_N, sorted_N)
        stay = order[rank_N < self._members]
        self._pool, self._island, self._score = self._pool[stay], self._island[stay], self._score[stay]

    @property
    def best(self) -> Integers:
        """Archive index of each island's best network; [I]."""
        first_I = np.searchsorted(self._island, np.arange(len(self)))
        return np.asarray(self._pool[first_I], dtype=np.intp)

    def _best_scores(self) -> Floats:
        return np.asarray(self._score[np.searchsorted(self._island, np.arange(len(self)))])

    def evolve(self, evaluations: int) -> int:
        """Evaluate up to ``evaluations`` children; stops early after 30 generations without a new network.

        Returns:
            The number of evaluated networks.
        """
        start, fruitless = len(self._archive), 0
        while (left := evaluations - (len(self._archive) - start)) > 0 and fruitless < _FRUITLESS:
            rows_NC, island_N = self._children(_GENERATION)
            costs = self._archive.problem.costs_of_rows(rows_NC)
            promising = self._promising(costs, island_N)
            new = promising[self._archive.fresh(rows_NC[promising])[:left]]
            fruitless = 0 if len(new) else fruitless + 1
            if len(new):
                before_I = self._best_scores()
                index_N = self._archive.extend(rows_NC[new], costs={name: column_N[new] for name, column_N in costs.items()})
                self.settle(index_N, island_N[new])
                self._idle_I += np.bincount(island_N[new], minlength=len(self))
                self._idle_I[self._best_scores() > before_I] = 0
                self._start_anew()
        return len(self._archive) - start

    def _start_anew(self) -> None:
        """Restart islands without recent progress; their best networks stay in the archive.

        An island restarts at random with founders, which may lead elsewhere, or with members of other islands, which combine their results.
        """
        for island in np.flatnonzero(self._idle_I > _PATIENCE * self._members).tolist():
            stay = self._island != island
            self._pool, self._island, self._score = self._pool[stay], self._island[stay], self._score[stay]
            others = np.unique(self._pool)
            if len(others) and self._rng.random() < _SETTLED:
                self._begin(island, self._rng.choice(others, size=min(self._members, len(others)), replace=False))
            else:
                self._begin(island, self._founding())

    def _founding(self) -> Integers:
        share = max(1, round(_SHARE * len(self._founders)))
        return np.asarray(self._rng.choice(self._founders, size=share, replace=False))

    def _begin(self, island: int, settlers: Integers) -> None:
        self.settle(settlers, np.full(len(settlers), island))
        self._idle_I[island] = 0

    def _children(self, count: int) -> tuple[Rows, Integers]:
        """Canonical rows of children, and the island of each."""
        first_I = np.searchsorted(self._island, np.arange(len(self) + 1))
        island_N = self._rng.integers(len(self), size=count)
        parents = [
            self._pool[first_I[island_N] + (self._rng.random(count) * (first_I[island_N + 1] - first_I[island_N])).astype(np.intp)]
            for _ in range(2)
        ]
        one_NC, other_NC = (self._archive.rows[parent] for parent in parents)
        swapped_NC = self._rng.random(one_NC.shape, dtype=np.float32) < np.float32(0.5)
        swapped_NC &= (self._rng.random(count) < _CROSSED)[:, None]
        rows_NC = np.where(swapped_NC, other_NC, one_NC)
        mutations_N = self._rng.poisson(_MUTATIONS, size=count)
        who, column = np.repeat(np.arange(count), mutations_N), self._rng.integers(rows_NC.shape[1], size=int(mutations_N.sum()))
        rows_NC[who, column] = (self._rng.random(len(who)) * self._space.cardinalities[column]).astype(ROW_DTYPE)
        return self._space.canonical(rows_NC), island_N

    def _promising(self, columns: Columns, island_N: Integers) -> Integers:
        """The indices of children that can still become members, judged by their costs alone."""
        problem = self._archive.problem
        if not problem.needed:
            return np.arange(len(island_N))
        limits = [limit for limit in problem.limits if limit.column in columns]
        excess_N = self._excess(np.stack([columns[name] for name in problem.costs], axis=1) if problem.costs else None, island_N)
        np.maximum(excess_N, excess_of(limits, columns, len(island_N)), out=excess_N)
        worst_I = np.searchsorted(self._island, np.arange(len(self)), side="right") - 1
        full_I = np.bincount(self._island, minlength=len(self)) >= self._members
        bar_I = np.where(full_I, self._score[worst_I], -np.inf)
        return np.flatnonzero((excess_N <= 0) | (-1 - excess_N > bar_I[island_N]))

    def _scores(self, index_N: Integers, island_N: Integers) -> Floats:
        """Accuracy of networks within target and budget; for others a negative score that falls with their excess."""
        problem, archive = self._archive.problem, self._archive
        excess_N = self._excess(archive.costs(problem.costs)[index_N] if problem.costs else None, island_N)
        columns = {name: column[index_N] for name, column in archive.columns.items()}
        np.maximum(excess_N, excess_of(problem.limits, columns, len(index_N)), out=excess_N)
        return np.where(excess_N <= 0, archive.accuracies[index_N], -1 - np.maximum(excess_N, 0))

    def _excess(self, costs_NK: Floats | None, island_N: Integers) -> Floats:
        """By how much networks exceed their islands' targets, as a share of the target; [N]."""
        if costs_NK is None:
            return np.full(len(island_N), -np.inf)
        worst_N: Floats = (costs_NK / self._targets_IK[island_N] - 1).max(axis=1)
        return worst_N


def sample_of_all_sizes(space: Space, count: int, rng: np.random.Generator) -> Rows:
    """Canonical rows of random networks. Half of them lean to small or large sizes: uniform genes give no network for a small budget."""
    leaning_NC = space.sample_leaning_rows(count - count // 2, rng)
    return np.concatenate([space.sample_rows(count // 2, rng), leaning_NC])


def targets_along_front(archive: Archive, count: int, rng: np.random.Generator) -> Floats:
    """Targets for the islands that together cover the whole front.

    With one objective they are evenly spaced on a logarithmic scale between the smallest and the largest cost in the archive within the
    budget. With several objectives each target is the costs of a random network of the archive. Without objectives all islands are equal.

    Returns:
        The targets; [I, K].
    """
    names = archive.problem.costs
    if not names:
        return np.empty((count, 0))
    allowed = archive.allowed
    costs_NK = archive.costs(names)[allowed if allowed.any() else slice(None)]
    if len(names) == 1:
        return np.geomspace(costs_NK.min(), costs_NK.max(), count)[:, None]
    return np.asarray(costs_NK[rng.integers(len(costs_NK), size=count)], dtype=np.float64)
