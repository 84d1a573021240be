from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from numpy.typing import NDArray

from ofa.arrays import Rows
from ofa.errors import OfaError, SearchError
from ofa.space import Space
from search.budget import Budget, excess_of
from search.evolution.archive import Archive
from search.front.front import Front
from search.front.infeasible import ImpossibleBudgetError
from search.study import SAMPLERS, Effort, run_study
from tests.search.fakes import SMALL, SPACE, TINY, FakeAccuracy, FakeLatency, SlowAccuracy, every_arch, fake_problem
from tests.search.killing import trials_of

HIGH = "latency_high_ms@paper"


def effort(trials: int, evaluations: int = 200, islands: int = 8) -> Effort:
    return Effort(trials=trials, evaluations=evaluations, islands=islands)


def archive_of(space: Space, rows_NC: Rows, **settings: Any) -> Archive:
    archive = Archive(fake_problem(space, **settings))
    archive.evaluate(rows_NC)
    return archive


def summary(front: Front) -> list[str]:
    return list(front.networks["arch"])


@pytest.fixture(scope="module")
def truth() -> dict[str, NDArray[np.float64]]:
    return archive_of(TINY, TINY.encode_all(every_arch(TINY))).columns


def test_the_front_is_that_of_an_exhaustive_search(truth: dict[str, NDArray[np.float64]]) -> None:
    front = run_study(fake_problem(TINY), seed=0, effort=effort(48, 290))
    assert front.info.study["evaluated"] < 0.8 * TINY.size
    for limit in np.quantile(truth[HIGH], np.linspace(0, 1, 40)):
        best = truth["accuracy"][truth[HIGH] <= limit].max()
        assert front.query(Budget({"latency_ms": float(limit)}))[0].accuracy == pytest.approx(best, abs=1e-12)


def test_the_sampler_beats_chance() -> None:
    drawn = archive_of(SMALL, SMALL.sample_rows(200, np.random.default_rng(3)))
    limits = np.quantile(drawn.columns[HIGH], np.linspace(0.05, 0.95, 19)).tolist()

    def mean_accuracy(sampler: str) -> float:
        front = run_study(fake_problem(), seed=0, effort=effort(400, 0), sampler=sampler)
        return float(np.mean([front.query(Budget({"latency_ms": limit}))[0].accuracy for limit in limits]))

    assert mean_accuracy("nsga2") > mean_accuracy("random")


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("nsga3", "evolution")])
def test_the_seed_decides(sampler: str) -> None:
    few = effort(12 if sampler == "gp" else 30, 0)  # a Gaussian process begins after ten trials, and takes long
    first, again, other = (run_study(fake_problem(), seed=seed, effort=few, sampler=sampler) for seed in (0, 0, 1))
    assert summary(first) == summary(again)
    assert summary(first) != summary(other)
    assert first.info.study["trials"] == few.trials


def test_the_seed_decides_what_evolves() -> None:
    first, again, other = (run_study(fake_problem(), seed=seed, effort=effort(30)) for seed in (0, 0, 1))
    assert summary(first) == summary(again)
    assert summary(first) != summary(other)


def test_optunas_word_on_an_experimental_sampler_reaches_the_user() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning, match="NSGAIIISampler"):
        front = run_study(fake_problem(), seed=0, effort=effort(60, 0), sampler="nsga3")
    assert len(front)


@pytest.mark.parametrize("evaluations", [0, 50])
def test_the_ends_of_the_space_are_looked_at(evaluations: int) -> None:
    front = run_study(fake_problem(), seed=0, effort=effort(5, evaluations))
    ends = archive_of(SMALL, SMALL.encode_all([SMALL.smallest(), SMALL.largest()])).columns
    assert front.networks[HIGH].min() == ends[HIGH][0]
    assert front.query(Budget())[0].accuracy >= ends["accuracy"][1]


def test_hard_limits_are_kept_by_the_whole_front_and_steer_the_search() -> None:
    budget = Budget({"latency_ms": 0.35, "params": 50_000})
    problem = fake_problem(budget=budget)
    bound = run_study(problem, seed=0, effort=effort(200, 0))
    free = run_study(fake_problem(objectives=(HIGH, "params")), seed=0, effort=effort(200, 0))
    assert bound.networks[HIGH].max() <= 0.35
    assert bound.networks["params"].max() <= 50_000

    def share_within(front: Front) -> float:
        rows = pd.concat([front.networks, front.dominated])
        columns = {limit.column: rows[limit.column].to_numpy(dtype=np.float64) for limit in problem.limits}
        return float((excess_of(problem.limits, columns, len(rows)) <= 0).mean())

    assert share_within(bound) > 1.5 * share_within(free)


def test_other_costs_can_be_objectives() -> None:
    front = run_study(fake_problem(objectives=("macs", "peak_activation_bytes")), seed=0, effort=effort(50))
    assert front.info.objectives == ("macs", "peak_activation_bytes")


def test_an_impossible_budget_ends_with_the_least_there_is() -> None:
    with pytest.raises(ImpossibleBudgetError, match="the least achievable is latency"):
        run_study(fake_problem(budget=Budget({"latency_ms": 0.001})), seed=0, effort=effort(50))


# -- storage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "study.journal")


def test_a_measured_study_is_resumed(storage: str) -> None:
    accuracy = FakeAccuracy(SMALL)
    half = run_study(fake_problem(accuracy=accuracy), seed=0, effort=effort(10, 0), storage=storage)
    accuracy.asked.clear()
    whole = run_study(fake_problem(accuracy=accuracy), seed=0, effort=effort(20, 0), storage=storage)
    assert whole.info.study["trials"] == 20
    found = len(whole)  # the intervals of the front are asked for, which a source that measures knows by then
    assert 5 <= len(accuracy.asked) - found <= 10
    accuracy.asked.clear()
    again = run_study(fake_problem(accuracy=accuracy), seed=0, effort=effort(20, 0), storage=storage)
    assert len(accuracy.asked) == found
    assert summary(again) == summary(whole)
    limits = half.networks[HIGH]
    budgets = [Budget({"latency_ms": limit}) for limit in limits]
    assert all(whole.query(budget)[0].accuracy >= half.query(budget)[0].accuracy for budget in budgets)


class MeasuredLatency(FakeLatency):
    """Says which networks it has to measure."""

    is_measured = True

    def __init__(self) -> None:
        super().__init__(half_width=None)
        self.measured: list[bytes] = []
        self._known: dict[bytes, float] = {}

    def recall(self, rows_NC: Rows, values_N: NDArray[np.float64], /) -> None:
        self._known.update(zip((row_C.tobytes() for row_C in rows_NC), values_N.tolist(), strict=True))

    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[NDArray[np.float64], ...]:
        for row_C in rows_NC:
            if row_C.tobytes() not in self._known:
                self.measured.append(row_C.tobytes())
                self._known[row_C.tobytes()] = float(super().estimates_of_rows(row_C[None])[0][0])
        ms_N = np.array([self._known[row_C.tobytes()] for row_C in rows_NC])
        return ms_N, ms_N, ms_N


def test_what_was_measured_is_not_measured_again_by_the_next_process(tmp_path: Path) -> None:
    storage, log = str(tmp_path / "study.journal"), tmp_path / "log"
    for number in range(2):
        latency = MeasuredLatency()
        problem = fake_problem(accuracy=SlowAccuracy(str(log), seconds=0), latencies=[latency])
        front = run_study(problem, seed=0, effort=effort(12, 0), storage=storage)
        # Looking for the least latency measures the smallest network, before any trial.
        assert len(set(latency.measured)) == len(latency.measured) <= (13 if number == 0 else 1)
        assert front.info.study["trials"] == 12
    begun = [line for line in log.read_text().splitlines() if "begins" in line]
    assert len(set(begun)) == len(begun) <= 12
    trial = trials_of(storage, SMALL.name)[0]
    assert trial.user_attrs["latency_ms@paper"] == trial.values[1]


def test_a_study_of_arrays_is_resumed(storage: str) -> None:
    run_study(fake_problem(), seed=0, effort=effort(16), storage=storage)
    whole = run_study(fake_problem(), seed=0, effort=effort(24), storage=storage)
    assert whole.info.study["trials"] == 24
    assert [trial.state.name for trial in trials_of(storage, SMALL.name)] == ["COMPLETE"] * 24


@pytest.mark.parametrize("evaluations", [0, 50])
def test_the_storage_holds_the_finished_trials_with_their_constraints(storage: str, evaluations: int) -> None:
    run_study(fake_problem(budget=Budget({"latency_ms": 0.5})), seed=0, effort=effort(10, evaluations), storage=storage, name="mine")
    trials = trials_of(storage, "mine")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 10
    for trial in trials[::5]:
        row_1C = SMALL.canonical(np.array([[trial.params.get(gene.name, 0) for gene in SMALL.columns]], dtype=np.int8))
        columns = archive_of(SMALL, row_1C).columns
        assert trial.values == pytest.approx([columns["accuracy"][0], columns[HIGH][0]])
        assert trial.constraints == pytest.approx({"latency_ms <= 0.5": columns[HIGH][0] / 0.5 - 1})
        assert trial.user_attrs["latency_ms <= 0.5"] == trial.constraints["latency_ms <= 0.5"]


class Failing(FakeAccuracy):
    """Fails from some call on."""

    def __init__(self, failure: Exception | float, calls: int) -> None:
        super().__init__(SMALL)
        self._failure = failure
        self._calls = calls

    def of_rows(self, rows_NC: Rows, /) -> NDArray[np.float64]:
        values = super().of_rows(rows_NC)
        self._calls -= 1
        if self._calls < 0 and isinstance(self._failure, Exception):
            raise self._failure
        return np.where(np.arange(len(values)) == len(values) // 2, self._failure, values) if self._calls < 0 else values


@pytest.mark.parametrize("evaluations", [0, 100])
@pytest.mark.parametrize(("failure", "words"), [(float("nan"), "returns nan"), (RuntimeError("no power"), "RuntimeError: no power")])
def test_a_failing_accuracy_leaves_the_study_intact(failure: Exception | float, words: str, evaluations: int, storage: str) -> None:
    with pytest.raises(SearchError, match=words) as caught:
        run_study(fake_problem(accuracy=Failing(failure, calls=3)), seed=0, effort=effort(20, evaluations), storage=storage)
    assert "\n" not in str(caught.value)
    states = [trial.state.name for trial in trials_of(storage, SMALL.name)]
    assert set(states) <= {"COMPLETE", "FAIL"}
    front = run_study(fake_problem(), seed=0, effort=effort(20, evaluations), storage=storage)
    assert front.info.study["trials"] == 20
    states = [trial.state.name for trial in trials_of(storage, SMALL.name)]
    assert states.count("COMPLETE") == 20
    assert states.count("RUNNING") == 0


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"budget": Budget({"macs": 1e6})}, "budget"),
        ({"latencies": [FakeLatency(half_width=0.1)]}, "latency table"),
        ({"objectives": (HIGH, "macs")}, "costs to trade"),
        ({"space": SPACE}, "choices of the space"),
        ({"latencies": [FakeLatency(device="other")]}, "devices"),
    ],
)
def test_a_study_of_another_problem_is_not_resumed(other: dict[str, Any], words: str, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(fake_problem(), seed=0, effort=effort(10), storage=storage)
    with pytest.raises(SearchError, match=f"{words} of study '{SMALL.name}'"):
        run_study(fake_problem(**other), seed=0, effort=effort(20), storage=storage)
    assert len(run_study(fake_problem(**other), seed=0, effort=effort(20), storage=storage, name="another"))


# -- manners -----------------------------------------------------------------------------------------------------------


def test_optuna_is_silent_and_its_verbosity_untouched(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    handler = optuna.logging.get_verbosity(), logging.getLogger("optuna").handlers[:]
    run_study(fake_problem(), seed=0, effort=effort(20))
    run_study(fake_problem(), seed=0, effort=effort(20), storage=str(tmp_path / "study.journal"))
    run_study(fake_problem(), seed=0, effort=effort(30, 0), storage=str(tmp_path / "study.journal"))
    run_study(fake_problem(), seed=0, effort=effort(5, 0), storage=f"sqlite:///{tmp_path}/study.db")
    assert capfd.readouterr() == ("", "")
    assert (optuna.logging.get_verbosity(), logging.getLogger("optuna").handlers) == handler


@pytest.mark.parametrize("evaluations", [0, 300])
def test_progress_ends_at_its_total(evaluations: int) -> None:
    seen: list[tuple[int, int]] = []
    settings = effort(70, evaluations)
    run_study(fake_problem(), seed=0, effort=settings, progress=lambda done, total, text="": seen.append((done, total)))
    assert {total for _, total in seen} == {70 + evaluations}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (70 + evaluations, 70 + evaluations)


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"evaluations": -1}, {"islands": 0}])
def test_too_little_effort_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(OfaError, match="at least 1 trial, 0 evaluations and 1 island"):
        Effort(**wrong)


@pytest.mark.parametrize(
    ("sampler", "evaluations", "words"),
    [("nsga", 0, "did you mean 'nsga"), ("tpe", 5, "evaluates trials only"), ("evolution", 0, "must evaluate at least 1 network")],
)
def test_a_sampler_has_a_known_name_and_the_effort_that_it_uses(sampler: str, evaluations: int, words: str) -> None:
    with pytest.raises(SearchError, match=words):
        run_study(fake_problem(), seed=0, effort=effort(5, evaluations), sampler=sampler)
