"""Everything that a search evaluated, each network once.

Shape suffixes: N networks, C columns of an encoded arch, K costs that the search needs.
"""

from __future__ import annotations

import numpy as np

from ofa.arrays import Bools, Floats, Integers, Rows
from search.budget import Columns, excess_of
from search.problem import Problem

__all__ = ["Archive"]


_FIRST_ROOM = 4096
_SEED = 0  # of the keys' multipliers: a network has the same key in every process


class Archive:
    """The networks that were evaluated, with their accuracies and costs, and which of them keep the budget.

    A network is recognized by a random linear function of its genes modulo 2^64: among ten million networks the chance that any two
    share one, and one of them is taken for the other, is below 1 in 300,000.

    Args:
        problem: what evaluates the networks.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        multipliers = np.random.default_rng(_SEED).integers(2**63, size=len(problem.space.columns), dtype=np.uint64)
        self._multipliers = multipliers * np.uint64(2) + np.uint64(1)
        self._index: dict[int, int] = {}
        self._rows: Rows = np.empty((_FIRST_ROOM, len(problem.space.columns)), dtype=np.int8)
        self._numbers: Floats = np.empty((_FIRST_ROOM, 1 + len(problem.needed)))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def rows(self) -> Rows:
        """All networks, in the order in which they came; [N, C]."""
        return self._rows[: len(self)]

    @property
    def accuracies(self) -> Floats:
        """Of all networks; [N]."""
        return self._numbers[: len(self), 0]

    def costs(self, names: tuple[str, ...]) -> Floats:
        """Of all networks, some of the problem's ``needed``; [N, K]."""
        return self._numbers[: len(self), [1 + self.problem.needed.index(name) for name in names]]

    @property
    def columns(self) -> dict[str, Floats]:
        """Accuracy and needed costs of all networks, by name."""
        return dict(zip(("accuracy", *self.problem.needed), self._numbers[: len(self)].T, strict=True))

    @property
    def excess(self) -> Floats:
        """How far each network is beyond the budget as a share of it; [N], at most 0 where it keeps it."""
        return excess_of(self.problem.limits, self.columns, len(self))

    @property
    def allowed(self) -> Bools:
        """Whether each network keeps the budget; [N]."""
        return np.asarray(self.excess <= 0)

    def fresh(self, rows_NC: Rows) -> Integers:
        """The indices of canonical rows that are not there yet, each network once."""
        unknown: dict[int, int] = {}
        for number, key in enumerate(self._keys(rows_NC)):
            if key not in self._index and key not in unknown:
                unknown[key] = number
        return np.fromiter(unknown.values(), dtype=np.intp, count=len(unknown))

    def evaluate(self, rows_NC: Rows, accuracies: Floats | None = None) -> Integers:
        """Take networks in; where each of them stands in the archive [N].

        Args:
            rows_NC: canonical rows; what is known already is not asked again.
            accuracies: theirs [N], where they are known; otherwise the accuracy source is asked once for all new ones.

        Raises:
            OfaError: as ``Problem.accuracies`` and ``Problem.costs_of_rows``; then none is taken in.
        """
        new = self.fresh(rows_NC)
        if len(new):
            self.extend(rows_NC[new], None if accuracies is None else accuracies[new])
        return np.array([self._index[key] for key in self._keys(rows_NC)], dtype=np.intp)

    def extend(self, rows_NC: Rows, accuracies: Floats | None = None, costs: Columns | None = None) -> Integers:
        """Take in networks of which each is new (``fresh``), with their needed costs where they are known; otherwise as ``evaluate``."""
        costs = self.problem.costs_of_rows(rows_NC) if costs is None else costs
        values_N = self.problem.accuracies(rows_NC) if accuracies is None else accuracies
        start, end = len(self), len(self) + len(rows_NC)
        while end > len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._numbers = np.concatenate([self._numbers, np.empty_like(self._numbers)])
        self._rows[start:end] = rows_NC
        self._numbers[start:end] = np.stack([values_N, *(costs[name] for name in self.problem.needed)], axis=1)
        self._index.update(zip(self._keys(rows_NC), range(start, end), strict=True))
        return np.arange(start, end)

    def _keys(self, rows_NC: Rows) -> list[int]:
        keys: list[int] = (rows_NC.astype(np.uint64) @ self._multipliers).tolist()
        return keys
