from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from numpy.typing import NDArray

from ofa.arch import Arch
from ofa.errors import OfaError, SearchError
from search.budget import COLUMNS, Budget
from search.front import Front, ImpossibleBudgetError, staircase
from search.neighbourhood import improve
from search.problem import Archive
from search.study import SAMPLERS, run_study
from tests.search.fakes import SMALL, SPACE, FakeAccuracy, FakeLatency, every_arch, fake_problem

TINY = SPACE.restrict(resolution=SPACE.resolutions[:2], depth=[0])
"""Small enough to know the truth."""


@pytest.fixture(scope="module")
def truth() -> dict[str, NDArray[np.float64]]:
    return fake_problem(TINY).evaluate(every_arch(TINY))


def summary(front: Front) -> list[str]:
    return list(front.networks["arch"])


def test_the_front_is_that_of_an_exhaustive_search(truth: dict[str, NDArray[np.float64]]) -> None:
    front = run_study(fake_problem(TINY), trials=100, seed=0, neighbours=400)
    assert front.metadata["study"]["evaluated"] < 0.8 * TINY.size
    for limit in np.quantile(truth["latency_high_ms"], np.linspace(0, 1, 40)):
        best = truth["accuracy"][truth["latency_high_ms"] <= limit].max()
        assert front.query(Budget(latency_ms=float(limit)))[0].accuracy == pytest.approx(best, abs=1e-12)


def test_the_sampler_beats_chance() -> None:
    rng = np.random.default_rng(3)
    drawn = fake_problem().evaluate([SMALL.sample(rng) for _ in range(200)])
    limits = np.quantile(drawn["latency_high_ms"], np.linspace(0.05, 0.95, 19)).tolist()

    def mean_accuracy(sampler: str) -> float:
        front = run_study(fake_problem(), trials=400, seed=0, sampler=sampler)
        return float(np.mean([front.query(Budget(latency_ms=limit))[0].accuracy for limit in limits]))

    assert mean_accuracy("nsga2") > mean_accuracy("random")


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "nsga3"])
def test_the_seed_decides(sampler: str) -> None:
    first, again, other = (run_study(fake_problem(), trials=30, seed=seed, sampler=sampler) for seed in (0, 0, 1))
    assert summary(first) == summary(again)
    assert summary(first) != summary(other)
    assert first.metadata["study"]["trials"] == 30


def test_optunas_word_on_an_experimental_sampler_reaches_the_user() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning, match="NSGAIIISampler"):
        front = run_study(fake_problem(), trials=60, seed=0, sampler="nsga3")
    assert len(front)


def test_the_ends_of_the_space_are_looked_at() -> None:
    problem = fake_problem()
    front = run_study(problem, trials=5, seed=0)
    ends = problem.evaluate([SMALL.smallest(), SMALL.largest()])
    assert front.networks["latency_ms"].min() == ends["latency_ms"][0]
    assert front.query(Budget())[0].accuracy >= ends["accuracy"][1]


def test_hard_limits_are_kept_by_the_whole_front_and_steer_the_search() -> None:
    budget = Budget(latency_ms=0.35, params=50_000)
    bound, free = (run_study(fake_problem(budget=limits), trials=200, seed=0) for limits in (budget, Budget()))
    assert bound.networks["latency_high_ms"].max() <= 0.35
    assert bound.networks["params"].max() <= 50_000

    def share_within(front: Front) -> float:
        rows = pd.concat([front.networks, front.dominated])
        return float(budget.allows({name: rows[name].to_numpy() for name in COLUMNS}).mean())

    assert share_within(bound) > 1.5 * share_within(free)


def test_other_costs_can_be_objectives() -> None:
    front = run_study(fake_problem(objectives=("macs", "peak_activation_bytes")), trials=100, seed=0, neighbours=100)
    assert front.metadata["objectives"] == ["accuracy", "macs", "peak_activation_bytes"]


def test_an_impossible_budget_ends_with_the_least_that_was_found() -> None:
    with pytest.raises(ImpossibleBudgetError, match="latency_ms") as caught:
        run_study(fake_problem(budget=Budget(latency_ms=0.001)), trials=50, seed=0, neighbours=50)
    least = fake_problem().evaluate([SMALL.smallest()])["latency_high_ms"][0]
    assert caught.value.binding == {"latency_ms": least}


# -- neighbourhoods ----------------------------------------------------------------------------------------------------


def test_improvement_ends_where_no_neighbour_is_better() -> None:
    archive = Archive(fake_problem(TINY))
    archive.evaluate([TINY.smallest(), TINY.largest()])
    improve(archive, limit=TINY.size)
    columns = archive.columns()
    for row in np.flatnonzero(staircase(columns, ("latency_ms",))):
        assert all(neighbour in archive for neighbour in TINY.neighbours(archive.archs[row]))
    assert improve(archive, limit=1000) == 0


def test_improvement_stays_within_its_limit() -> None:
    archive = Archive(fake_problem())
    archive.evaluate([SMALL.smallest()])
    assert improve(archive, limit=37) == 37
    assert len(archive) == 38


def test_improvement_finds_its_way_into_the_budget() -> None:
    smallest = fake_problem().evaluate([SMALL.smallest()])
    archive = Archive(fake_problem(budget=Budget(macs=1.3 * float(smallest["macs"][0]))))
    archive.evaluate([SMALL.largest()])
    improve(archive, limit=600)
    assert archive.problem.budget.allows(archive.columns()).any()


# -- storage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "study.journal")


def test_a_study_is_resumed(storage: str) -> None:
    accuracy = FakeAccuracy(SMALL)
    half = run_study(fake_problem(accuracy=accuracy), trials=20, seed=0, storage=storage)
    asked = len(accuracy.asked)
    whole = run_study(fake_problem(accuracy=accuracy), trials=40, seed=0, storage=storage)
    assert whole.metadata["study"]["trials"] == 40
    assert 10 <= len(accuracy.asked) - asked <= 20
    known = len(accuracy.asked)
    again = run_study(fake_problem(accuracy=accuracy), trials=40, seed=0, storage=storage)
    assert len(accuracy.asked) == known
    assert summary(again) == summary(whole)
    limits = half.networks["latency_high_ms"]
    assert all(whole.query(Budget(latency_ms=limit))[0].accuracy >= half.query(Budget(latency_ms=limit))[0].accuracy for limit in limits)


def test_the_storage_holds_the_finished_trials_with_their_constraints(storage: str) -> None:
    run_study(fake_problem(budget=Budget(latency_ms=0.5)), trials=20, seed=0, storage=storage, name="mine")
    backend: Any = storage
    if "://" not in storage:
        backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    study = optuna.load_study(study_name="mine", storage=backend)
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 20
    problem = fake_problem()
    for trial in trials[::5]:
        arch = SMALL.decode([trial.params.get(gene.name, 0) for gene in SMALL.columns])
        columns = problem.evaluate([arch])
        assert trial.values == pytest.approx([columns["accuracy"][0], columns["latency_ms"][0]])
        assert trial.constraints == pytest.approx({"latency_ms": columns["latency_high_ms"][0] / 0.5 - 1})
    assert study.best_trials


class Failing(FakeAccuracy):
    """Fails from some call on."""

    def __init__(self, failure: Exception | float, calls: int) -> None:
        super().__init__(SMALL)
        self._failure = failure
        self._calls = calls

    def __call__(self, archs: Sequence[Arch], /) -> NDArray[np.float64]:
        values = super().__call__(archs)
        self._calls -= 1
        if self._calls < 0 and isinstance(self._failure, Exception):
            raise self._failure
        return np.where(np.arange(len(values)) == 3, self._failure, values) if self._calls < 0 else values


@pytest.mark.parametrize(("failure", "words"), [(float("nan"), "answers nan"), (RuntimeError("no power"), "RuntimeError: no power")])
def test_a_failing_accuracy_leaves_the_study_intact(failure: Exception | float, words: str, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    with pytest.raises(SearchError, match=words):
        run_study(fake_problem(accuracy=Failing(failure, calls=1)), trials=100, seed=0, storage=storage)
    accuracy = FakeAccuracy(SMALL)
    front = run_study(fake_problem(accuracy=accuracy), trials=100, seed=0, storage=storage)
    assert front.metadata["study"]["trials"] == 100
    assert len(accuracy.asked) <= 50


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"budget": Budget(macs=1e6)}, "budget"),
        ({"latency": FakeLatency(half_width=0.1)}, "latency_digest"),
        ({"objectives": ("latency_ms", "macs")}, "objectives"),
    ],
)
def test_a_study_of_another_problem_is_not_resumed(other: dict[str, Any], key: str, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(fake_problem(), trials=10, seed=0, storage=storage)
    with pytest.raises(SearchError, match=f"{key} of study '{SMALL.name}'"):
        run_study(fake_problem(**other), trials=20, seed=0, storage=storage)
    assert len(run_study(fake_problem(**other), trials=20, seed=0, storage=storage, name="another"))


@pytest.mark.parametrize("storage", ["sqlite:////nowhere/at/all/study.db", "nonsense://", "/nowhere/study.journal"])
def test_a_storage_that_cannot_be_used_is_one_sentence(storage: str) -> None:
    with pytest.raises(SearchError, match="storage of a study") as caught:
        run_study(fake_problem(), trials=10, seed=0, storage=storage)
    assert "\n" not in str(caught.value)


# -- manners -----------------------------------------------------------------------------------------------------------


def test_optuna_is_silent_and_its_verbosity_untouched(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    handler = optuna.logging.get_verbosity(), logging.getLogger("optuna").handlers[:]
    run_study(fake_problem(), trials=20, seed=0)
    run_study(fake_problem(), trials=20, seed=0, storage=str(tmp_path / "study.journal"))
    run_study(fake_problem(), trials=30, seed=0, storage=str(tmp_path / "study.journal"))
    assert capfd.readouterr() == ("", "")
    assert (optuna.logging.get_verbosity(), logging.getLogger("optuna").handlers) == handler


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int]] = []
    run_study(fake_problem(), trials=70, seed=0, neighbours=50, progress=lambda done, total, text="": seen.append((done, total)))
    assert {total for _, total in seen} == {120}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (120, 120)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trials": 0}, "at least 1 trial"),
        ({"neighbours": -1}, "at least 1 trial and 0 neighbours"),
        ({"sampler": "nsga"}, "did you mean 'nsga"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(OfaError, match=words):
        run_study(fake_problem(), **{"trials": 10, "seed": 0, **settings})
