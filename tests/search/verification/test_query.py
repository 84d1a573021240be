from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from devices import Device, Timing, TimingPolicy
from latency_tables import Estimator, LatencyTable, build_table, calibrate_table, timing
from ofa.errors import BudgetError, SearchError, TableError
from search.budget import Bound, Budget
from search.front.front import Front
from search.problem import Problem
from search.study import Effort, run_study
from search.verification.answer import VerifiedAnswer
from search.verification.query import query_verified
from tests.search.fakes import SMALL, SPACE, FakeAccuracy, FakeLatency

FAKE = Device(name="fake", runtime="fake")
QUICK = TimingPolicy(min_rounds=4, max_rounds=4)
LATENCY = "latency_ms@fake"


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    built = build_table(SPACE, FAKE, resolutions=SMALL.resolutions, rng=np.random.default_rng(0), policy=QUICK)
    return calibrate_table(built, SPACE, FAKE, resolutions=SMALL.resolutions, rng=np.random.default_rng(0), policy=QUICK)


@pytest.fixture(scope="module")
def front(table: LatencyTable) -> Front:
    problem = Problem(space=SMALL, accuracy=FakeAccuracy(), latencies=[Estimator(SPACE, table)])
    return run_study(problem, seed=0, effort=Effort(trials=32, evaluations=3000, islands=4))


def ask(front: Front, budget: Budget, **settings: Any) -> VerifiedAnswer:
    fixed = {"device": FAKE, "rng": np.random.default_rng(0), "processes": 3, "policy": QUICK}
    return query_verified(front, SPACE, budget, **{**fixed, **settings})


def within(front: Front, share: float, **others: float | Bound) -> Budget:
    """A budget at a quantile of the front's latencies."""
    return Budget({"latency_ms": float(np.quantile(front.columns[LATENCY], share)), **others})


@pytest.fixture
def slower(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the device slower than it is by a factor."""
    plain = timing.time_models

    def slow_down(factor: float) -> None:
        def timed(*arguments: Any, **named: Any) -> dict[str, Timing]:
            timings = plain(*arguments, **named)
            return {key: Timing(**{**asdict(timing), "median_ms": factor * timing.median_ms}) for key, timing in timings.items()}

        monkeypatch.setattr(timing, "time_models", timed)

    return slow_down


def test_networks_are_timed_in_the_devices_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    half, plain, seen = replace(FAKE, precision="fp16"), timing.time_models, set[int]()

    def look(device: Device, models: dict[str, Path], **named: Any) -> dict[str, Timing]:
        seen.update(constant.data_type for path in models.values() for constant in onnx.load(path).graph.initializer)
        return plain(device, models, **named)

    table = build_table(SPACE, half, resolutions=SMALL.resolutions, rng=np.random.default_rng(0), policy=QUICK)
    problem = Problem(space=SMALL, accuracy=FakeAccuracy(), latencies=[Estimator(SPACE, table)])
    front = run_study(problem, seed=0, effort=Effort(trials=16, evaluations=300, islands=4))
    monkeypatch.setattr(timing, "time_models", look)
    ask(front, within(front, 0.5), device=half)
    assert onnx.TensorProto.FLOAT16 in seen
    assert onnx.TensorProto.FLOAT not in seen


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_answer_keeps_the_budget_and_uses_it(front: Front, share: float) -> None:
    budget = within(front, share)
    answer = ask(front, budget, top=2)
    assert answer.budget_ms == budget.bounds["latency_ms"].most
    assert answer.slowdown == pytest.approx(1)
    assert all(found.measured_ms <= answer.budget_ms for found in answer.kept)
    first, second = answer.kept
    assert first.candidate.accuracy > second.candidate.accuracy
    assert first.budget_used is not None
    assert 0.93 < first.budget_used <= 1 / (1 + answer.margin)
    promised = first.candidate.latencies["fake"]
    assert first.within_interval == (promised.latency_low_ms <= first.measured_ms <= promised.latency_high_ms)
    # Nothing that was timed and is better keeps it, and nothing near it that was not is missing from the front's own view.
    dropped = [found for found in answer.dropped if found.candidate.accuracy > first.candidate.accuracy]
    assert all(found.likely_ms > answer.budget_ms / (1 + answer.margin) for found in dropped)


def test_a_device_slower_than_its_table_costs_drops_once_and_never_again(
    front: Front, table: LatencyTable, slower: Callable[[float], None]
) -> None:
    slower(1.07)
    budget = within(front, 0.6)
    first = ask(front, budget, table=table)
    assert first.slowdown == pytest.approx(1.07, rel=0.01)
    assert first.kept[0].measured_ms <= first.budget_ms
    over = [found for found in first.dropped if found.measured_ms > first.budget_ms]
    assert over
    assert all("takes" in found.reason for found in over)
    assert first.table is not None
    assert table.correction is not None
    assert first.table.correction is not None
    assert first.table.correction.speed == pytest.approx(1.07 * table.correction.speed, rel=0.01)
    assert len(first.table.info.networks) > len(table.info.networks)
    assert first.front.columns[LATENCY] == pytest.approx(1.07 * front.columns[LATENCY], rel=0.01)
    assert first.front.info.least[LATENCY] == pytest.approx(1.07 * front.info.least[LATENCY], rel=0.01)
    second = ask(first.front, budget, table=first.table)
    assert second.slowdown == pytest.approx(1, abs=0.005)
    assert [found for found in second.dropped if found.measured_ms > 1.01 * second.budget_ms] == []
    assert second.kept[0].candidate.arch == first.kept[0].candidate.arch
    promised = second.kept[0].candidate.latencies["fake"]
    assert second.kept[0].measured_ms == pytest.approx(promised.latency_ms, rel=0.01)


def test_a_table_that_is_wrong_about_networks_is_corrected(front: Front, table: LatencyTable) -> None:
    # The machine is as fast as ever, but whoever calibrated has stored a slope that is too small.
    assert table.correction is not None
    calibration = replace(table.correction, slope=0.92 * table.correction.slope)
    wrong = table.with_info(calibration=calibration)
    answer = ask(front, within(front, 0.5), table=wrong)
    assert answer.slowdown == pytest.approx(1)
    assert answer.kept[0].measured_ms <= answer.budget_ms
    assert answer.kept[0].budget_used > 0.93
    assert answer.kept[0].candidate.latencies["fake"].latency_ms < 0.96 * answer.kept[0].measured_ms
    assert answer.table is not None
    assert Estimator(SPACE, answer.table)(answer.kept[0].candidate.arch).latency_ms == pytest.approx(answer.kept[0].measured_ms, rel=0.01)


def test_what_was_measured_is_noted_in_the_front(front: Front, tmp_path: Path) -> None:
    answer = ask(front, within(front, 0.5))
    again = ask(answer.front, within(front, 0.5))
    verified = again.front.info.verified
    assert [entry.arch for entry in verified] == [entry.arch for entry in answer.front.info.verified]
    best = answer.kept[0]
    (noted,) = [entry for entry in verified if entry.arch == best.candidate.arch]
    assert noted.promised == best.candidate.latencies["fake"]
    assert noted.measured_ms == pytest.approx(best.measured_ms)
    again.front.save(tmp_path / "f.parquet")
    assert Front.load(tmp_path / "f.parquet").info.verified == verified
    assert answer.table is None, "nothing to learn for"


def test_the_answer_is_json_under_stable_keys(front: Front) -> None:
    answer = ask(front, within(front, 0.5))
    value = json.loads(json.dumps(answer.to_json()))
    assert set(value) == {"device", "budget_ms", "margin", "slowdown", "rounds", "conditions", "results", "dropped"}
    added = {"measured_ms", "measured_low_ms", "measured_high_ms", "processes", "typical_ms", "likely_ms", "budget_used", "within_interval"}
    assert set(value["results"][0]) == {*answer.kept[0].candidate.to_json(), *added}
    assert value["results"][0]["processes"] >= 3
    assert all(found["reason"] for found in value["dropped"])


def test_without_a_limit_the_best_are_measured_and_none_is_dropped(front: Front) -> None:
    answer = ask(front, Budget({"macs": float(np.median(front.columns["macs"]))}), top=3)
    assert answer.rounds == 1
    assert answer.budget_ms is None
    assert answer.dropped == ()
    best = front.query(Budget({"macs": float(np.median(front.columns["macs"]))}), top=3)
    assert [found.candidate for found in answer.kept] == list(best)
    assert answer.kept[0].budget_used is None


def test_all_other_limits_are_kept(front: Front) -> None:
    limit = float(np.quantile(front.columns["macs"], 0.3))
    answer = ask(front, within(front, 0.6, macs=limit))
    assert answer.kept[0].candidate.costs["macs"] <= limit
    assert answer.kept[0].candidate == front.query(Budget({"macs": limit}))[0]
    least = float(np.quantile(front.columns[LATENCY], 0.5))
    narrow = ask(front, Budget({"latency_ms": Bound(least=least, most=1.3 * least)}, expected_latency=True))
    assert narrow.budget_ms == 1.3 * least
    assert least <= narrow.kept[0].candidate.latencies["fake"].latency_ms <= 1.3 * least
    with pytest.raises(BudgetError, match=r"none of the front has MACs <= 0\.001K"):
        ask(front, within(front, 0.5, macs=1))


def test_a_budget_that_nothing_keeps_is_answered_with_the_least_that_was_measured(front: Front, slower: Callable[[float], None]) -> None:
    slower(1.5)
    least = float(front.columns[LATENCY].min())
    with pytest.raises(BudgetError, match=r"takes [0-9.]+ ms while the machine is 50% slower than usual; allow") as caught:
        ask(front, Budget({"latency_ms": 1.2 * least}))
    ((name, enough),) = caught.value.binding.items()  # type: ignore[attr-defined]
    assert name == LATENCY
    assert enough == pytest.approx(1.5 * least, rel=0.05)
    assert ask(front, Budget({"latency_ms": 1.01 * enough})).kept


def test_a_front_of_several_devices_is_verified_on_one(table: LatencyTable) -> None:
    paper = FakeLatency(wide=16)
    problem = Problem(space=SMALL, accuracy=FakeAccuracy(), latencies=[Estimator(SPACE, table), paper])
    front = run_study(problem, seed=0, effort=Effort(trials=32, evaluations=2000, islands=4))
    limits = {name: float(np.quantile(front.columns[f"latency_high_{name[8:]}"], 0.5)) for name in (LATENCY, "latency_ms@paper")}
    answer = ask(front, Budget(limits), table=table)
    assert answer.budget_ms == limits[LATENCY]
    best = answer.kept[0]
    assert best.measured_ms <= limits[LATENCY]
    assert best.candidate.latencies["paper"].latency_high_ms <= limits["latency_ms@paper"]
    assert np.array_equal(answer.front.columns["latency_ms@paper"], front.columns["latency_ms@paper"])
    with pytest.raises(SearchError, match="knows fake, paper and not pi"):
        ask(front, Budget(limits), device=replace(FAKE, name="pi"))


def test_another_device_or_table_is_refused(front: Front, table: LatencyTable) -> None:
    with pytest.raises(TableError, match="the threads of the table that the front was searched with is 1"):
        ask(front, Budget(), device=replace(FAKE, threads=2))
    other = table.with_info(device=replace(FAKE, name="other").to_json())
    with pytest.raises(TableError, match="the name of the table is 'other'"):
        ask(front, Budget(), table=other)
    with pytest.raises(SearchError, match="'top' of at least 1, but got 0"):
        ask(front, Budget(), top=0)
    with pytest.raises(SearchError, match="margin must be a share of at least 0"):
        ask(front, Budget(), margin=-0.1)


def test_a_front_without_calibration_is_verified_by_the_clock_alone(table: LatencyTable, slower: Callable[[float], None]) -> None:
    bare = table.with_info(calibration=None, networks=())
    problem = Problem(space=SMALL, accuracy=FakeAccuracy(), latencies=[Estimator(SPACE, bare)])
    front = run_study(problem, seed=0, effort=Effort(trials=32, evaluations=2000, islands=4))
    answer = ask(front, within(front, 0.5), table=bare)
    assert (answer.slowdown, answer.table) == (None, None)
    assert answer.kept[0].within_interval is None
    assert 0.93 < answer.kept[0].budget_used <= 1
