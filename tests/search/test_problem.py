from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ofa.costs import costs
from ofa.errors import SearchError
from ofa.families import get_space, lower
from search.budget import Budget, known_columns
from search.problem import Problem
from tests.search.fakes import SMALL, FakeAccuracy, FakeLatency, fake_problem

ARCHS = [SMALL.smallest(), SMALL.largest(), SMALL.sample(np.random.default_rng(0))]
ROWS = SMALL.encode_all(ARCHS)
TWO = (FakeLatency(), FakeLatency(device="pi", wide=16, half_width=None))


def test_a_network_has_all_its_numbers() -> None:
    problem = fake_problem(latencies=TWO)
    columns = problem.costs_of_rows(ROWS, problem.column_names)
    assert tuple(columns) == known_columns(["paper", "pi"])
    full = problem.accuracy.space
    for source in TWO:
        expected_N, low_N, _ = source.estimates_of_rows(SMALL.rows_in(full, ROWS))
        assert (columns[f"latency_ms@{source.device_name}"] == expected_N).all()
        assert (columns[f"latency_low_ms@{source.device_name}"] == np.where(np.isnan(low_N), expected_N, low_N)).all()
    for i, arch in enumerate(ARCHS):
        counted = costs(lower(SMALL, arch))
        assert {name: columns[name][i] for name in counted} == counted
    assert problem.accuracies(ROWS) == pytest.approx(FakeAccuracy(SMALL)(ARCHS))


def test_a_search_needs_only_what_it_trades_and_limits() -> None:
    assert fake_problem(latencies=TWO).needed == ("latency_high_ms@paper", "latency_high_ms@pi")
    assert fake_problem(latencies=()).needed == ("macs",)
    bound = fake_problem(budget=Budget({"params": 1e6, "accuracy": 0.5}), objectives=())
    assert bound.needed == ("params",)
    assert fake_problem(budget=Budget(expected_latency=True)).costs == ("latency_ms@paper",)


def test_nothing_to_evaluate_is_nothing() -> None:
    problem = fake_problem()
    assert len(problem.accuracies(ROWS[:0])) == 0
    assert all(len(column) == 0 for column in problem.costs_of_rows(ROWS[:0]).values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accuracy": FakeAccuracy(get_space("ofa-proxyless-tiny"))}, "with 10 classes; fit, train or measure for ofa-mbv3-tiny"),
        ({"latencies": [FakeLatency(get_space("ofa-proxyless-tiny"))]}, "latencies must be of the searched space"),
        ({"latencies": [FakeLatency(), FakeLatency()]}, "each device must come once, but they are paper, paper"),
        ({"objectives": ("latencyms@paper",)}, "did you mean 'latency_ms@paper'"),
        ({"objectives": ("energy_mj@paper",)}, "an objective must be a known cost"),
        ({"budget": Budget({"energy_mj": 3})}, "no table here has energy on paper"),
        ({"budget": Budget({"latency_ms@pi": 3})}, "it knows paper"),
    ],
)  # fmt: skip
def test_a_problem_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SearchError, match=words):
        Problem(space=SMALL, **{"accuracy": FakeAccuracy(SMALL), "latencies": [FakeLatency()], **settings})
