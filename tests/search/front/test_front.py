from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import Conditions, Device
from latency_tables.info import TableInfo
from ofa.arch import Arch
from ofa.errors import FileError, SearchError
from search.budget import Bound, Budget, excess_of
from search.evolution.archive import Archive
from search.front.build import check_possible, extreme, front_of
from search.front.front import Front
from search.front.infeasible import ImpossibleBudgetError
from tests.resealed import write_parquet
from tests.search.fakes import SMALL, FakeLatency, every_arch, fake_problem

TWO = (FakeLatency(), FakeLatency(device="pi", wide=4, half_width=None))
OBJECTIVES = ("latency_high_ms@paper", "latency_high_ms@pi", "params")


def make_archive(count: int = 400, **settings: Any) -> Archive:
    archive = Archive(fake_problem(**{"latencies": TWO, "objectives": OBJECTIVES, **settings}))
    ends = SMALL.encode_all([SMALL.smallest(), SMALL.largest()])
    archive.evaluate(np.concatenate([ends, SMALL.sample_rows(count, np.random.default_rng(0))]))
    return archive


ARCHIVE = make_archive()
FRONT = front_of(ARCHIVE, {})
ALL = {"accuracy": ARCHIVE.accuracies, **ARCHIVE.problem.costs_of_rows(ARCHIVE.rows, ARCHIVE.problem.column_names)}
LIMITED = {"latency_ms@paper": "latency_high_ms@paper", "latency_ms@pi": "latency_high_ms@pi", "params": "params", "accuracy": "accuracy"}


@given(st.dictionaries(st.sampled_from(list(LIMITED)), st.floats(0.02, 1.0), max_size=3))
def test_the_front_answers_any_budget_as_well_as_everything_that_was_evaluated(shares: dict[str, float]) -> None:
    budget = Budget({name: float(np.quantile(ALL[LIMITED[name]], share)) for name, share in shares.items()})
    allowed = excess_of(budget.limits(FRONT.device_names), ALL, len(ARCHIVE)) <= 0
    if allowed.any():
        (best,) = FRONT.query(budget)
        assert best.accuracy == ALL["accuracy"][allowed].max()
        row = ARCHIVE.evaluate(SMALL.encode_all([best.arch]))[0]
        assert allowed[row]
        assert best.costs["macs"] == ALL["macs"][row]
        assert best.latencies["pi"].latency_high_ms == ALL["latency_high_ms@pi"][row]
        assert FRONT.unsearched(budget) == ()
    else:
        with pytest.raises(ImpossibleBudgetError):
            FRONT.query(budget)


def test_it_tells_what_its_latencies_hold_under() -> None:
    device = Device(name="paper", runtime="fake", pause_ms=20)
    fields = {key: value for key, value in device.to_json().items() if key != "pause_ms"}
    about = {"paper": TableInfo(device=device.to_json(), runtime_version="1"), "pi": TableInfo(device=fields, runtime_version=None)}
    front = FRONT.with_info(latency=about)
    assert front.conditions["paper"] == Conditions.of(device, runtime_version="1")
    assert front.conditions["pi"].pause_ms == 0.0
    assert FRONT.with_info(latency={}).conditions == {}


def test_the_best_come_first() -> None:
    found = FRONT.query(Budget({"latency_ms@paper": 0.5}), top=5)
    assert len({candidate.arch for candidate in found}) == 5
    assert [c.accuracy for c in found] == sorted((c.accuracy for c in found), reverse=True)
    assert len(FRONT.query(Budget(), top=10**6)) == len(FRONT)
    with pytest.raises(SearchError, match="top is 0"):
        FRONT.query(Budget(), top=0)


def test_a_front_says_what_it_was_not_searched_for() -> None:
    assert FRONT.unsearched(Budget({"macs": 1e6, "params": 1e6})) == ("macs",)
    assert FRONT.unsearched(Budget({"params": Bound(least=10)})) == ("params",)
    with pytest.raises(SearchError, match="energy on pi is not among"):
        FRONT.query(Budget({"energy_mj@pi": 1}))


def test_an_impossible_limit_is_answered_with_the_least_that_can_be_and_the_nearest_network() -> None:
    least = float(ALL["latency_high_ms@paper"].min())
    with pytest.raises(ImpossibleBudgetError, match=r"least achievable is latency on paper [0-9.]+ms;") as caught:
        FRONT.query(Budget({"latency_ms@paper": least * 0.99, "macs": 1e12}))
    assert caught.value.binding == {"latency_ms@paper": least}
    assert caught.value.nearest is not None
    assert caught.value.nearest.latencies["paper"].latency_high_ms == least
    assert f"(the nearest network: {caught.value.nearest.arch.in_words}, fake accuracy {caught.value.nearest.accuracy:.1%})" in str(
        caught.value
    )
    stated = float(str(caught.value).partition("is latency on paper ")[2].partition("ms;")[0])
    assert least <= stated < 1.001 * least


def test_limits_that_exclude_each_other_are_named_with_what_each_would_have_to_be() -> None:
    # In this space what is fast is also small; parameters are mirrored, so that the fast networks have many.
    networks = FRONT.networks.assign(params=FRONT.networks["params"].max() + 1 - FRONT.networks["params"])
    front = Front(networks, FRONT.dominated, replace(FRONT.info, least={}))
    limits = {
        "latency_ms@paper": float(networks["latency_high_ms@paper"].quantile(0.1)),
        "params": float(networks["params"].quantile(0.1)),
    }
    with pytest.raises(ImpossibleBudgetError, match="with the other limits kept") as caught:
        front.query(Budget(limits))
    assert set(caught.value.binding) == set(limits)
    for key, value in caught.value.binding.items():
        assert value > limits[key]
        assert front.query(Budget({**limits, key: value}))


def test_what_is_asked_too_much_of_is_answered_with_the_most() -> None:
    most = float(ALL["accuracy"].max())
    with pytest.raises(ImpossibleBudgetError, match="the most achievable is accuracy") as caught:
        FRONT.query(Budget({"accuracy": min(1.0, most * 1.01)}))
    assert caught.value.binding == {"accuracy": most}


def test_the_least_is_that_of_the_whole_space() -> None:
    problem = fake_problem(latencies=TWO)
    everything = problem.costs_of_rows(SMALL.encode_all(every_arch(SMALL)), problem.column_names)
    for name in problem.column_names:
        value, row_1C = extreme(problem, name)
        assert value == everything[name].min() == problem.costs_of_rows(row_1C, [name])[name][0]
        assert extreme(problem, name, largest=True)[0] == everything[name].max()


@pytest.mark.parametrize("limits", [{"macs": 1000}, {"latency_ms@pi": 0.001}, {"params": Bound(least=10**9)}])
def test_an_impossible_search_ends_before_it_begins(limits: dict[str, Any]) -> None:
    problem = fake_problem(latencies=TWO, budget=Budget({"weight_bytes": 1e9, **limits}))
    with pytest.raises(ImpossibleBudgetError, match="achievable is") as caught:
        check_possible(problem)
    assert set(caught.value.binding) == set(limits)
    assert caught.value.nearest is not None
    check_possible(fake_problem(budget=Budget({"macs": 1e7})))


def test_a_search_without_an_answer_says_what_is_least() -> None:
    archive = make_archive(20, budget=Budget({"accuracy": 0.9999}))
    with pytest.raises(ImpossibleBudgetError, match="the most achievable is accuracy"):
        front_of(archive, {})


def test_only_networks_within_the_budget_are_on_the_front() -> None:
    limit = float(np.median(ALL["macs"]))
    archive = make_archive(budget=Budget({"macs": limit}))
    front = front_of(archive, {})
    assert front.networks["macs"].max() <= limit
    assert len(front.networks) + len(front.dominated) == len(archive)


def test_a_saved_front_answers_the_same(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    FRONT.save(path)
    loaded = Front.load(path)
    budget = Budget({"latency_ms@paper": 0.5})
    assert loaded.query(budget, top=3) == FRONT.query(budget, top=3)
    assert loaded.device_names == ("paper", "pi")
    assert loaded.info == FRONT.info
    assert len(loaded.dominated) == len(FRONT.dominated)
    assert set(loaded.dominated) == set(FRONT.dominated)


def test_a_candidate_is_json_under_the_stable_keys() -> None:
    (best,) = FRONT.query(Budget())
    value = json.loads(json.dumps(best.to_json()))
    latencies = {"latency_ms", "latency_low_ms", "latency_high_ms"}
    accuracies = {"accuracy", "accuracy_low", "accuracy_high"}
    assert set(value) == accuracies | latencies | {"devices", "arch", "macs", "params", "weight_bytes", "peak_activation_bytes"}
    assert value["devices"]["paper"] == {name: value[name] for name in latencies}
    assert set(value["devices"]) == {"paper", "pi"}
    assert value["accuracy_low"] < value["accuracy"] < value["accuracy_high"]
    assert Arch.from_json(value["arch"]) == best.arch
    assert isinstance(value["macs"], int)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    FRONT.save(path)
    write_parquet(pq.read_table(path), path, schema=99, ofa="7.0")
    with pytest.raises(FileError, match=r"has 99 \(written by ofa 7.0\)"):
        Front.load(path)
    write_parquet(pq.read_table(path), path, schema=1, ofa="0.0.9")
    with pytest.raises(FileError, match=r"has 1 \(written by ofa 0.0.9\); make it again with: ofa search"):
        Front.load(path)
    write_parquet(pq.read_table(path), path, schema=2, kind="predictor")
    with pytest.raises(FileError, match="must be a front, but is a predictor; make a front with: ofa search"):
        Front.load(path)
    write_parquet(pq.read_table(path), path, kind="front", devices=["paper", "pi", "phone"])
    with pytest.raises(FileError, match="must be a whole front"):
        Front.load(path)
    write_parquet(pq.read_table(path), path, devices=["paper", "pi"])
    write_parquet(pq.read_table(path).drop_columns(["macs"]), path)
    with pytest.raises(FileError, match="column macs"):
        Front.load(path)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(FileError, match="damaged"):
        Front.load(path)
    with pytest.raises(FileError, match="check the path"):
        Front.load(tmp_path / "absent")


def test_a_front_is_not_written_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="must be in a folder that exists"):
        FRONT.save(tmp_path / "absent" / "f.parquet")
