"""The archive of all networks that a search evaluated, without duplicates.

Shape suffixes: N networks, C columns of an encoded arch, K costs that the search needs.
"""

from __future__ import annotations

import numpy as np

from ofa.arrays import Bools, Floats, Integers, Rows
from search.budget import Columns, excess_of
from search.problem import Problem

__all__ = ["Archive"]


_FIRST_ROOM = 4096
_SEED = 0  # seed of the hash's multipliers: a network has the same key in every process


class Archive:
    """All evaluated networks with their accuracies and costs.

    The key of a network is a hash: a random linear function of its genes modulo 2^64. The probability of any collision among ten million
    networks is below 1 in 300,000.

    Args:
        problem: the problem, whose sources evaluate the networks.
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
        """Encoded archs of all networks, in order of evaluation; [N, C]."""
        return self._rows[: len(self)]

    @property
    def accuracies(self) -> Floats:
        """Accuracies (0..1) of all networks; [N]."""
        return self._numbers[: len(self), 0]

    def costs(self, names: tuple[str, ...]) -> Floats:
        """Costs of all networks, by names among the problem's ``needed``; [N, K]."""
        return self._numbers[: len(self), [1 + self.problem.needed.index(name) for name in names]]

    @property
    def columns(self) -> dict[str, Floats]:
        """Accuracy and needed costs of all networks, by name."""
        return dict(zip(("accuracy", *self.problem.needed), self._numbers[: len(self)].T, strict=True))

    @property
    def excess(self) -> Floats:
        """By how much each network breaks the budget, as a share of the limit; [N]. At most 0 where it keeps the budget."""
        return excess_of(self.problem.limits, self.columns, len(self))

    @property
    def allowed(self) -> Bools:
        """Whether each network keeps the budget; [N]."""
        return np.asarray(self.excess <= 0)

    def fresh(self, rows_NC: Rows) -> Integers:
        """The indices of canonical rows that are not in the archive yet, without duplicates."""
        unknown: dict[int, int] = {}
        for number, key in enumerate(self._keys(rows_NC)):
            if key not in self._index and key not in unknown:
                unknown[key] = number
        return np.fromiter(unknown.values(), dtype=np.intp, count=len(unknown))

    def evaluate(self, rows_NC: Rows, accuracies: Floats | None = None) -> Integers:
        """Evaluate networks and add them to the archive.

        Args:
            rows_NC: canonical rows; networks in the archive are not evaluated again.
            accuracies: their accuracies if known; [N]. Otherwise one call of the accuracy source answers for all new networks.

        Returns:
            The archive index of each row; [N].

        Raises:
            OfaError: as ``Problem.accuracies`` and ``Problem.costs_of_rows``; the archive stays unchanged.
        """
        new = self.fresh(rows_NC)
        if len(new):
            self.extend(rows_NC[new], None if accuracies is None else accuracies[new])
        return np.array([self._index[key] for key in self._keys(rows_NC)], dtype=np.intp)

    def extend(self, rows_NC: Rows, accuracies: Floats | None = None, costs: Columns | None = None) -> Integers:
        """Like ``evaluate``, for rows that are all new (see ``fresh``); ``costs``, if known, are not computed again."""
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
