from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa.arrays import Rows
from ofa.errors import SearchError
from search.budget import Budget
from search.evolution.archive import Archive
from tests.search.fakes import SMALL, FakeAccuracy, FakeLatency, fake_problem

ROWS = SMALL.encode_all([SMALL.smallest(), SMALL.largest(), SMALL.sample(np.random.default_rng(0))])


def test_a_network_is_evaluated_once() -> None:
    accuracy = FakeAccuracy(SMALL)
    archive = Archive(fake_problem(accuracy=accuracy))
    assert archive.evaluate(ROWS[[0, 1, 2, 0]]).tolist() == [0, 1, 2, 0]
    assert archive.evaluate(ROWS[::-1]).tolist() == [2, 1, 0]
    assert accuracy.asked == [SMALL.decode(row) for row in ROWS.tolist()]
    assert (archive.rows == ROWS).all()
    assert len(archive) == 3


def test_it_knows_what_is_new() -> None:
    archive = Archive(fake_problem())
    archive.evaluate(ROWS[:1])
    assert archive.fresh(ROWS[[0, 1, 1, 2]]).tolist() == [1, 3]


def test_known_accuracies_are_not_asked_again() -> None:
    accuracy = FakeAccuracy(SMALL)
    archive = Archive(fake_problem(accuracy=accuracy))
    archive.evaluate(ROWS[[0, 1, 0]], np.array([0.25, 0.5, 0.25]))
    assert archive.accuracies.tolist() == [0.25, 0.5]
    assert accuracy.asked == []


def test_it_grows_and_keeps_what_it_has() -> None:
    problem = fake_problem()
    archive = Archive(problem)
    rows_NC = np.unique(SMALL.sample_rows(20_000, np.random.default_rng(0)), axis=0)
    for part_NC in np.array_split(rows_NC, 7):
        archive.evaluate(part_NC)
    assert (archive.rows == rows_NC).all()
    assert (archive.accuracies == problem.accuracies(rows_NC)).all()
    assert (archive.costs(("latency_high_ms@paper",))[:, 0] == problem.costs_of_rows(rows_NC)["latency_high_ms@paper"]).all()


def test_the_budget_says_what_is_allowed() -> None:
    macs = fake_problem().costs_of_rows(ROWS, ["macs"])["macs"]
    archive = Archive(fake_problem(budget=Budget({"macs": float(macs[2])})))
    archive.evaluate(ROWS)
    assert archive.allowed.tolist() == [True, False, True]
    assert archive.excess[1] == pytest.approx(macs[1] / macs[2] - 1)


class Answering(FakeAccuracy):
    def __init__(self, answer: Any) -> None:
        super().__init__(SMALL)
        self._answer = answer

    def of_rows(self, rows_NC: Rows, /) -> NDArray[np.float64]:
        return np.asarray(self._answer)


@pytest.mark.parametrize("answer", [[0.5, np.nan, 0.5], [0.5, 1.5, 0.5], [0.5, -0.1, 0.5], [0.5], 0.5])
def test_what_is_no_accuracy_is_refused_and_not_kept(answer: Any) -> None:
    archive = Archive(fake_problem(accuracy=Answering(answer)))
    with pytest.raises(SearchError, match="Answering"):
        archive.evaluate(ROWS)
    assert len(archive) == 0


class Broken(FakeLatency):
    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[NDArray[np.float64], ...]:
        return (np.full(len(rows_NC), np.nan),) * 3


def test_what_is_no_latency_is_refused_and_not_kept() -> None:
    archive = Archive(fake_problem(latencies=[Broken(SMALL)]))
    with pytest.raises(SearchError, match="latency on paper must be a positive number"):
        archive.evaluate(ROWS)
    assert len(archive) == 0
