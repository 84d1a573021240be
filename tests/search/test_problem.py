from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latency_tables import Estimate
from ofa.arch import Arch
from ofa.cost import costs
from ofa.errors import SearchError
from ofa.families import get_space, lower
from search.budget import COLUMNS, Budget
from search.problem import Archive, Problem
from tests.search.fakes import SMALL, FakeAccuracy, FakeLatency, fake_problem

ARCHS = [SMALL.smallest(), SMALL.largest(), SMALL.sample(np.random.default_rng(0))]


def test_a_network_has_all_its_numbers() -> None:
    problem = fake_problem()
    columns = problem.evaluate(ARCHS)
    assert tuple(columns) == COLUMNS
    for i, arch in enumerate(ARCHS):
        lowered = lower(SMALL, arch)
        estimate = FakeLatency().estimate(SMALL, lowered)
        assert (columns["latency_ms"][i], columns["latency_low_ms"][i], columns["latency_high_ms"][i]) == (
            estimate.latency_ms,
            estimate.low_ms,
            estimate.high_ms,
        )
        assert {name: columns[name][i] for name in costs(lowered)} == costs(lowered)
    assert columns["accuracy"] == pytest.approx(FakeAccuracy(SMALL)(ARCHS))


def test_a_table_without_an_interval_leaves_the_expected_latency() -> None:
    columns = fake_problem(latency=FakeLatency(half_width=None)).evaluate(ARCHS)
    assert np.array_equal(columns["latency_high_ms"], columns["latency_ms"])
    assert np.array_equal(columns["latency_low_ms"], columns["latency_ms"])


def test_a_network_is_evaluated_once() -> None:
    accuracy = FakeAccuracy(SMALL)
    archive = Archive(fake_problem(accuracy=accuracy))
    first = archive.evaluate([*ARCHS, ARCHS[0]])
    assert accuracy.asked == ARCHS
    again = archive.evaluate(ARCHS[::-1])
    assert accuracy.asked == ARCHS
    assert np.array_equal(again["macs"], first["macs"][[2, 1, 0]])
    assert first["macs"][3] == first["macs"][0]
    assert archive.archs == tuple(ARCHS)
    assert len(archive) == 3


def test_known_accuracies_are_not_asked_again() -> None:
    accuracy = FakeAccuracy(SMALL)
    archive = Archive(fake_problem(accuracy=accuracy))
    archive.recall([ARCHS[0], ARCHS[1], ARCHS[0]], np.array([0.25, 0.5, 0.25]))
    assert archive.evaluate(ARCHS[:2])["accuracy"].tolist() == [0.25, 0.5]
    assert accuracy.asked == []


def test_nothing_to_evaluate_is_nothing() -> None:
    assert all(len(column) == 0 for column in Archive(fake_problem()).evaluate([]).values())


def test_the_budget_is_compared_with_the_upper_end_of_the_interval() -> None:
    columns = fake_problem().evaluate(ARCHS)
    between = float(columns["latency_ms"][0] + columns["latency_high_ms"][0]) / 2
    assert not Budget(latency_ms=between).allows(columns)[0]
    assert Budget(latency_ms=between, expected_latency=True).allows(columns)[0]


def test_every_limit_counts() -> None:
    columns = fake_problem().evaluate(ARCHS)
    for key in ("macs", "params", "weight_bytes", "peak_activation_bytes"):
        exact = Budget.from_mapping({key: float(columns[key][2])})
        assert exact.allows(columns)[2]
        assert exact.violations(columns)[key][2] == 0
        assert not Budget.from_mapping({key: float(columns[key][2]) - 1}).allows(columns)[2]
    assert Budget().allows(columns).all()


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), True, "12"])
def test_a_limit_must_be_a_positive_number(limit: Any) -> None:
    with pytest.raises(SearchError, match="macs is"):
        Budget(macs=limit)


def test_an_unknown_limit_is_refused_with_the_nearest() -> None:
    with pytest.raises(SearchError, match="did you mean 'latency_ms'"):
        Budget.from_mapping({"latency": 3.0})


class Answering(FakeAccuracy):
    def __init__(self, answer: Any) -> None:
        super().__init__(SMALL)
        self._answer = answer

    def __call__(self, archs: Sequence[Arch], /) -> NDArray[np.float64]:
        return np.asarray(self._answer)


@pytest.mark.parametrize("answer", [[0.5, np.nan, 0.5], [0.5, 1.5, 0.5], [0.5, -0.1, 0.5], [0.5], 0.5])
def test_what_is_no_accuracy_is_refused_and_not_kept(answer: Any) -> None:
    archive = Archive(fake_problem(accuracy=Answering(answer)))
    with pytest.raises(SearchError, match="Answering"):
        archive.evaluate(ARCHS)
    assert len(archive) == 0


class Broken(FakeLatency):
    def estimate(self, *_: Any) -> Estimate:
        return Estimate(latency_ms=float("nan"))


def test_what_is_no_latency_is_refused() -> None:
    with pytest.raises(SearchError, match="positive number of milliseconds"):
        fake_problem(latency=Broken()).evaluate(ARCHS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accuracy": FakeAccuracy(get_space("ofa-proxyless-tiny"))}, "of ofa-proxyless-tiny; fit or train for ofa-mbv3-tiny"),
        ({"objectives": ("latencyms",)}, "did you mean 'latency_ms'"),
        ({"objectives": ()}, "objectives is empty"),
    ],
)
def test_a_problem_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SearchError, match=words):
        Problem(space=SMALL, **{"accuracy": FakeAccuracy(SMALL), "latency": FakeLatency(), **settings})
