"""The description of a study's problem, by which a search of another problem is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from optuna import Study

from ofa.errors import SearchError
from ofa.families import space_names
from ofa.schema import to_json
from search.problem import Problem
from search.units import called, typed

__all__ = ["check_same", "describe"]

_KEY = "ofa"

_CALLED = {
    "genes_digest": "choices of the space",
    "objectives": "costs to trade",
    "expected_latency": "use of the expected latency",
    "accuracy": "source of accuracies",
    "latency_digest": "latency table",
}


def describe(problem: Problem) -> dict[str, Any]:
    """The properties that all searches of one study must share, as JSON values."""
    latency = json.dumps([to_json(source.info) for source in problem.latencies], sort_keys=True)
    genes = json.dumps([[gene.name, list(gene.values)] for gene in problem.space.columns], default=str)
    whole = problem.of_whole
    # The name identifies a space of ofa completely, and studies of earlier versions store nothing else.
    own = {} if whole.name in space_names() else {"space_digest": _digest(json.dumps(whole.to_json(), sort_keys=True))}
    return {
        "space": problem.space.name,
        **own,
        "genes_digest": _digest(genes),
        "devices": list(problem.devices),
        "objectives": list(problem.costs),
        "budget": problem.budget.to_json(),
        "expected_latency": problem.budget.expected_latency,
        "accuracy": dict(problem.accuracy.provenance),
        "latency_digest": _digest(latency),
    }


def check_same(study: Study, description: Mapping[str, Any], storage: str) -> None:
    """Check that a study is of the described problem; a new study stores the description.

    Args:
        study: the study.
        description: description of the problem (``describe``).
        storage: the storage's URL or path without secrets, for the message.

    Raises:
        SearchError: the study is of another problem.
    """
    found = study.user_attrs.get(_KEY)
    if found is None and not study.get_trials(deepcopy=False):
        found = dict(description)
        study.set_user_attr(_KEY, found)
    for key, value in description.items():
        if (found or {}).get(key) != value:
            raise SearchError(
                f"a study is resumed with the problem that it began with, but the {_CALLED.get(key, key)} of study '{study.study_name}' in "
                f"'{storage}' {_change(key, (found or {}).get(key), value)}; give this study a name of its own"
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _change(key: str, then: Any, now: Any) -> str:
    """Old and new value in words, where both are short."""
    if key == "objectives" and isinstance(then, list):
        then, now = (", ".join(map(called, names)) or "none" for names in (then, now))
    elif key == "budget" and isinstance(then, Mapping):
        then, now = (", ".join(_limit(name, limit) for name, limit in limits.items()) or "none" for limits in (then, now))
    elif not isinstance(then, str | bool | list) or key.endswith("_digest"):
        return "differs from the present one"
    return f"is {then} and now {now}"


def _limit(name: str, limit: float | Mapping[str, float]) -> str:
    ends = limit.items() if isinstance(limit, Mapping) else [("least" if name == "accuracy" else "most", limit)]
    return f"{called(name)} of at {' and at '.join(f'{end} {typed(name, value)}' for end, value in ends)}"
