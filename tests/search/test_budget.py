from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ofa.errors import SearchError
from search.budget import Bound, Budget, excess_of

COLUMNS = {
    "accuracy": np.array([0.6, 0.7, 0.8]),
    "macs": np.array([1e6, 2e6, 3e6]),
    "latency_ms@pi": np.array([1.0, 2.0, 3.0]),
    "latency_low_ms@pi": np.array([0.9, 1.9, 2.9]),
    "latency_high_ms@pi": np.array([1.1, 2.1, 3.1]),
    "latency_ms@phone": np.array([3.0, 2.0, 1.0]),
    "latency_low_ms@phone": np.array([3.0, 2.0, 1.0]),
    "latency_high_ms@phone": np.array([3.0, 2.0, 1.0]),
}


def kept(budget: Budget, devices: tuple[str, ...] = ("pi", "phone")) -> list[bool]:
    found: list[bool] = (excess_of(budget.limits(devices), COLUMNS, 3) <= 0).tolist()
    return found


def test_a_number_is_the_most_and_of_accuracy_the_least() -> None:
    assert kept(Budget({"macs": 2e6})) == [True, True, False]
    assert kept(Budget({"accuracy": 0.7})) == [False, True, True]
    assert kept(Budget()) == [True, True, True]


def test_a_bound_has_two_ends() -> None:
    assert kept(Budget({"macs": Bound(least=1.5e6, most=2.5e6)})) == [False, True, False]
    assert kept(Budget({"macs": Bound(least=1.5e6)})) == [False, True, True]


def test_a_latency_is_compared_by_the_end_of_its_interval_that_is_sure() -> None:
    assert kept(Budget({"latency_ms@pi": 2.05})) == [True, False, False]
    assert kept(Budget({"latency_ms@pi": 2.05}, expected_latency=True)) == [True, True, False]
    assert kept(Budget({"latency_ms@pi": Bound(least=1.95)})) == [False, False, True]


def test_every_device_has_its_own_limit() -> None:
    assert kept(Budget({"latency_ms@pi": 2.5, "latency_ms@phone": 2.5})) == [False, True, False]
    assert kept(Budget({"latency_ms": 2.5}), ("pi",)) == [True, True, False]


def test_a_device_must_be_said_where_there_are_several_and_known_where_it_is_said() -> None:
    with pytest.raises(SearchError, match="must name its device"):
        Budget({"latency_ms": 2.5}).limits(("pi", "phone"))
    with pytest.raises(SearchError, match="latency on fridge; it knows pi"):
        Budget({"latency_ms@fridge": 2.5}).limits(("pi",))
    with pytest.raises(SearchError, match="knows no device"):
        Budget({"latency_ms": 2.5}).limits(())


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), True, "12"])
def test_a_limit_must_be_a_positive_number(limit: Any) -> None:
    with pytest.raises(SearchError, match="positive number"):
        Budget({"macs": limit})


def test_limits_must_leave_something() -> None:
    with pytest.raises(SearchError, match="at least 3 and at most 2"):
        Bound(least=3, most=2)
    with pytest.raises(SearchError, match="neither"):
        Bound()
    with pytest.raises(SearchError, match="divide percentages"):
        Budget({"accuracy": 76})


@pytest.mark.parametrize("name", ["latency", "macs@pi", "latency_ms@", "latency_low_ms"])
def test_an_unknown_limit_is_refused(name: str) -> None:
    with pytest.raises(SearchError, match="must limit a known number"):
        Budget({name: 3.0})


def test_an_unknown_limit_is_refused_with_the_nearest() -> None:
    with pytest.raises(SearchError, match="did you mean 'latency_ms'"):
        Budget({"latency": 3.0})


def test_json_tells_what_was_asked() -> None:
    budget = Budget({"macs": 2.0, "accuracy": 0.5, "params": Bound(least=1, most=3), "latency_ms@pi": Bound(least=2), "weight_bytes": None})
    assert budget.to_json() == {"macs": 2.0, "accuracy": 0.5, "params": {"least": 1, "most": 3}, "latency_ms@pi": {"least": 2}}
    assert budget
    assert not Budget({"macs": None})
