"""The error for infeasible budgets: which limits bind, the nearest achievable values, and the nearest network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ofa.arrays import Floats
from ofa.errors import BudgetError
from search.budget import Columns, Limit
from search.front.candidate import Candidate
from search.units import called, typed

__all__ = ["ImpossibleBudgetError", "impossible"]


class ImpossibleBudgetError(BudgetError):
    """A budget that no network keeps.

    Attributes:
        binding: nearest achievable value by binding limit (with the other limits kept, if each limit alone is achievable).
        nearest: the network with the smallest worst violation; None if no network was evaluated.
    """

    def __init__(self, message: str, binding: Mapping[str, float], nearest: Candidate | None) -> None:
        super().__init__(message)
        self.binding = dict(binding)
        self.nearest = nearest


def impossible(
    limits: Sequence[Limit],
    columns: Columns,
    least: Mapping[str, float],
    *,
    nearest: Candidate | None,
    among: str,
    source: str | None = None,
) -> ImpossibleBudgetError:
    """The error for a budget that no network of a set keeps.

    Args:
        limits: limits of the budget.
        columns: columns of the networks.
        least: smallest known values of the whole space, by column; may lack some.
        nearest: the network with the smallest worst violation.
        among: words for the set of networks.
        source: source of the accuracies: ``predicted`` or ``measured``.
    """
    achievable = {limit: _achievable(limit, columns, least) for limit in limits}
    alone = {limit: value for limit, value in achievable.items() if limit.sign * (value / limit.limit - 1) > 0}
    binding = alone or _together(limits, columns)
    wanted = " and ".join(
        f"{called(_of(limit), end=True)} {'<=' if limit.sign > 0 else '>='} {typed(limit.column, limit.limit)}" for limit in limits
    )
    words = (" and " if alone else " or ").join(
        f"{called(limit.name)} {typed(limit.column, value, up=limit.sign > 0)}" for limit, value in binding.items()
    )
    kind = "most" if all(limit.sign < 0 for limit in binding) else "least"
    how = f"the {kind} achievable is" if alone else f"with the other limits kept the {kind} achievable is"
    accuracy = f"{source} accuracy" if source else "accuracy"
    near = "" if nearest is None else f" (the nearest network: {nearest.words}, {accuracy} {nearest.accuracy:.1%})"
    message = f"a budget must be one that some network keeps, but none {among} has {wanted}: {how} {words}; change it to that{near}"
    return ImpossibleBudgetError(message, {limit.name: value for limit, value in binding.items()}, nearest)


def _achievable(limit: Limit, columns: Columns, least: Mapping[str, float]) -> float:
    values = columns[limit.column]
    if limit.sign < 0:
        return float(values.max())
    return min(float(values.min()), least.get(limit.column, math.inf))


def _of(limit: Limit) -> str:
    """The compared column, with its device only if the user named one."""
    return limit.column if "@" in limit.name else limit.column.partition("@")[0]


def _together(limits: Sequence[Limit], columns: Columns) -> dict[Limit, float]:
    """For limits that are achievable alone but not together: the value that each would need if the others stay."""
    excess: dict[Limit, Floats] = {limit: limit.excess(columns) for limit in limits}
    binding = {}
    for limit in limits:
        others = np.all([excess[other] <= 0 for other in limits if other != limit], axis=0)
        if np.any(others):
            values = columns[limit.column][others]
            binding[limit] = float(values.min() if limit.sign > 0 else values.max())
    if binding:
        return binding
    # Not even all limits but one can be kept together: name the values of the nearest network that break their limits.
    nearest = int(np.argmin(np.max(list(excess.values()), axis=0)))
    return {limit: float(columns[limit.column][nearest]) for limit in limits if excess[limit][nearest] > 0}
