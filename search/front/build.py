"""Builds the front from all networks that a search evaluated.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ofa.arrays import Floats, Rows
from ofa.resolution import resolutions_to_json
from ofa.space import Space
from search.evolution import local_search
from search.evolution.archive import Archive
from search.evolution.local_search import best_of
from search.front.candidate import Candidate
from search.front.front import PRECISION, Front
from search.front.infeasible import impossible
from search.front.info import FrontInfo
from search.precisions.sources import devices_by_precision, infos_of
from search.precisions.space import PrecisionSpace
from search.problem import Problem

__all__ = ["check_possible", "extreme", "front_of"]

_MOST_DOMINATED = 2000
"""Dominated networks that a front keeps for its pictures, evenly spread over all."""


def front_of(archive: Archive, study: Mapping[str, Any]) -> Front:
    """The front of all evaluated networks that keep the problem's budget.

    Args:
        archive: all evaluated networks.
        study: facts about the search for ``FrontInfo.study``, as JSON values.

    Raises:
        ImpossibleBudgetError: no evaluated network keeps the budget.
    """
    problem, best = archive.problem, best_of(archive)
    least = {name: extreme(problem, name)[0] for name in problem.column_names}
    if not archive.allowed.any():
        row_NC = archive.rows[best]
        raise impossible(
            problem.limits,
            archive.columns,
            least,
            nearest=_candidate(problem, row_NC, archive.accuracies[best]),
            among=f"of the {len(archive)} networks evaluated",
            source=problem.accuracy.provenance.get("source"),
        )
    networks = frame_of(problem, archive.rows[best], archive.accuracies[best])
    others = np.setdiff1d(np.arange(len(archive)), best)
    shown = others[np.linspace(0, len(others) - 1, min(len(others), _MOST_DOMINATED)).astype(np.intp)]
    computed = [name for name in problem.column_names if name in problem.needed or not problem.is_measured(name)]
    known = problem.costs_of_rows(archive.rows[shown], computed)
    dominated = pd.DataFrame({"accuracy": archive.accuracies[shown], **known})
    return Front(networks, dominated, _info(problem, least=least, study=study))


def _info(problem: Problem, *, least: Mapping[str, float], study: Mapping[str, Any]) -> FrontInfo:
    """Origin of accuracies and latencies, for the front."""
    return FrontInfo(
        space=problem.space.name,
        num_classes=problem.space.num_classes,
        space_json=problem.of_whole.to_json(),
        resolutions=tuple(resolutions_to_json(problem.space.resolutions)),
        devices=problem.devices,
        precisions={source.device_name: found for source in problem.latencies if (found := devices_by_precision(source))},
        objectives=problem.costs,
        least=least,
        budget=problem.budget.to_json(),
        expected_latency=problem.budget.expected_latency,
        accuracy=dict(problem.accuracy.provenance),
        latency={name: info for source in problem.latencies for name, info in infos_of(source).items()},
        study=study,
    )


def frame_of(problem: Problem, rows_NC: Rows, accuracies: Floats) -> pd.DataFrame:
    """Archs, accuracies and all costs of networks, one row each."""
    low_N, high_N = problem.accuracy_intervals(rows_NC)
    archs, precisions = [json.dumps(arch.to_json()) for arch in problem.archs(rows_NC)], problem.precisions(rows_NC)
    numbers = {"accuracy": accuracies, "accuracy_low": low_N, "accuracy_high": high_N}
    return pd.DataFrame({**numbers, **problem.costs_of_rows(rows_NC, problem.column_names), "arch": archs}).assign(
        **({} if precisions is None else {PRECISION: precisions})
    )


def check_possible(problem: Problem) -> None:
    """Check before a search that some network keeps each limit of the budget alone.

    Raises:
        ImpossibleBudgetError: no network keeps one of the limits.
    """
    for limit in problem.limits:
        if limit.column == "accuracy":
            continue
        value, row_1C = extreme(problem, limit.column, largest=limit.sign < 0)
        if limit.sign * (value / limit.limit - 1) > 0:
            columns = problem.costs_of_rows(row_1C)
            columns["accuracy"] = problem.accuracies(row_1C)
            least = {limit.column: value} if limit.sign > 0 else {}
            nearest = _candidate(problem, row_1C, columns["accuracy"])
            broken = [other for other in problem.limits if other == limit]
            source = problem.accuracy.provenance.get("source")
            raise impossible(broken, columns, least, nearest=nearest, among="in the space", source=source)


def extreme(problem: Problem, name: str, *, largest: bool = False) -> tuple[float, Rows]:
    """The smallest (or largest) value of one of the problem's costs, and the row [1, C] of a network that has it."""
    whole, found = problem.space, []
    # The precision changes the cost of every block, so coordinate descent is not exact over precisions: search each one separately.
    for part in whole.parts if isinstance(whole, PrecisionSpace) else (whole,):

        def cost(rows_NC: Rows, part: Space = part) -> Floats:
            return problem.costs_of_rows(part.rows_in(whole, rows_NC), [name])[name]

        value, row_1C = local_search.extreme(part, cost, largest=largest, descend=not problem.is_measured(name))
        found.append((value, part.rows_in(whole, row_1C)))
    return (max if largest else min)(found, key=lambda each: each[0])


def _candidate(problem: Problem, row_1C: Rows, accuracy: Floats) -> Candidate:
    frame = frame_of(problem, row_1C[:1], accuracy[:1])
    return Front(frame, frame.iloc[:0], _info(problem, least={}, study={})).candidate(0)
