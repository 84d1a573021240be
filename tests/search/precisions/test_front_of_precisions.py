"""A front over precisions: none of its networks is worse than itself in another precision, and what it says is of each one's file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from devices import TimingPolicy, get_device
from latency_tables import build_table
from ofa.api import search
from ofa.arch import Arch
from ofa.costs import costs
from ofa.errors import FileError, SearchError
from ofa.families import lower
from search.budget import Budget
from search.front.front import Front
from search.front.parts import budget_of_part, measuring_devices, part_measured_by, rejoined
from search.front.promise import promise_of
from search.precisions.costs import number_format
from search.precisions.space import PrecisionSpace
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.sampling import sample_stratified
from search.report import page_of
from search.study import Effort, run_study
from search.verification.query import query_verified
from tests.resealed import write_parquet
from tests.search.fakes import SMALL, SPACE, FakeAccuracy
from tests.search.precisions.twins import TWINS, TwinLatency, twin_problem
from tests.search.predictor.losses import losses_of

EFFORT = Effort(trials=32, evaluations=2500)
PROBLEM = twin_problem()
FRONT = run_study(PROBLEM, seed=0, effort=EFFORT)


def rows_of(front: Front) -> np.ndarray:
    """The networks of a front, as rows of the problem's space."""
    over = PROBLEM.space
    assert isinstance(over, PrecisionSpace)
    inner_NC = SMALL.encode_all([Arch.from_text(text) for text in front.networks["arch"]])
    values = [over.precisions.index(name) for name in front.precisions]
    return np.insert(inner_NC, over.column, values, axis=1).astype(inner_NC.dtype)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sampler", ["evolution", "nsga2"])
def test_no_network_is_beaten_by_itself_in_another_precision(seed: int, sampler: str) -> None:
    effort = EFFORT if sampler == "evolution" else Effort(trials=60, evaluations=0)
    front = run_study(PROBLEM, seed=seed, effort=effort, sampler=sampler)
    over, rows_NC = PROBLEM.space, rows_of(front)
    assert isinstance(over, PrecisionSpace)
    for precision in over.precisions:
        twins_NC = over.rows_at(rows_NC, precision)
        accuracy_N = PROBLEM.accuracies(twins_NC)
        latency_N = PROBLEM.costs_of_rows(twins_NC)["latency_high_ms@pi"]
        own_N, own_ms = front.columns["accuracy"], front.columns["latency_high_ms@pi"]
        assert not ((accuracy_N >= own_N) & (latency_N <= own_ms) & ((accuracy_N > own_N) | (latency_N < own_ms))).any()


def test_both_precisions_are_on_it_each_where_it_is_better() -> None:
    assert set(FRONT.precisions) == {"fp32", "int8"}
    ms = FRONT.columns["latency_high_ms@pi"]
    is_int8 = np.array(FRONT.precisions) == "int8"
    assert ms[is_int8].min() > 0.2 / 0.55 > ms[~is_int8].min()  # below, int8 is slower


def test_what_it_says_is_of_each_networks_file() -> None:
    for row in range(len(FRONT)):
        found = FRONT.candidate(row)
        lowered = lower(SPACE, found.arch)
        whole = costs(lowered)
        assert found.costs["macs"] == whole["macs"]
        stored = number_format(str(found.precision))
        assert (found.costs["weight_bytes"] == whole["weight_bytes"]) == (found.precision == "fp32")
        assert found.costs["weight_bytes"] <= whole["weight_bytes"] * stored.weight
        assert "precision" not in found.arch.network
        assert found.to_json()["precision"] == found.precision
    assert [each.precision for each in FRONT.conditions.values()] == ["int8", "fp32"]
    assert FRONT.space == SPACE
    assert page_of(FRONT).data["precisions"] == list(FRONT.precisions)


def test_budgets_on_weights_mean_the_file_in_its_precision() -> None:
    (largest,) = run_study(twin_problem(budget=Budget({"weight_bytes": "130KB"}), objectives=()), seed=0, effort=EFFORT).query(Budget())
    (whole,) = run_study(
        twin_problem(latencies=TWINS[:1], losses=(), budget=Budget({"weight_bytes": "130KB"}), objectives=()), seed=0, effort=EFFORT
    ).query(Budget())
    assert whole.costs["weight_bytes"] <= 130_000
    assert (largest.precision, whole.precision) == ("int8", None)
    assert largest.costs["weight_bytes"] <= 130_000 < costs(lower(SPACE, largest.arch))["weight_bytes"]
    assert largest.accuracy > whole.accuracy


def test_it_comes_back_from_its_file_and_one_without_precisions_needs_none(tmp_path: Path) -> None:
    FRONT.save(tmp_path / "front")
    loaded = Front.load(tmp_path / "front")
    assert loaded.precisions == FRONT.precisions
    assert loaded.info == FRONT.info
    assert loaded.query(Budget({"latency_ms": 1.0})) == FRONT.query(Budget({"latency_ms": 1.0}))
    table = pq.read_table(tmp_path / "front")
    write_parquet(table.drop_columns(["precision"]), tmp_path / "front")
    with pytest.raises(FileError, match="not of the same precisions"):
        Front.load(tmp_path / "front")
    plain = run_study(twin_problem(latencies=TWINS[:1], losses=()), seed=0, effort=Effort(trials=16, evaluations=300))
    plain.save(tmp_path / "plain")
    write_parquet(pq.read_table(tmp_path / "plain"), tmp_path / "plain", schema=3)  # as the version before wrote it
    old = Front.load(tmp_path / "plain")
    assert (old.precisions, old.candidate(0).precision, old.info.precisions) == ((), None, {})
    assert "precision" not in old.candidate(0).to_json()
    assert set(old.conditions) == {"pi"}


@pytest.mark.parametrize("device", ["pi", "pi-int8"])
def test_the_part_that_a_device_measures_is_a_front_of_that_device(device: str) -> None:
    part = part_measured_by(FRONT, device)
    precision = measuring_devices(FRONT)[device]
    assert (part.device_names, set(part.precisions), list(part.conditions)) == ((device,), {precision}, [device])
    assert len(part) == FRONT.precisions.count(str(precision))
    budget = Budget({"latency_ms@pi": 1.0, "macs": "1G", "accuracy": 0.1})
    (best,) = part.query(budget_of_part(budget, FRONT, device))
    among = [found for found in FRONT.query(budget, len(FRONT)) if found.precision == precision]
    assert (best.arch, best.accuracy, best.latencies[device]) == (among[0].arch, among[0].accuracy, among[0].latencies["pi"])
    assert rejoined(FRONT, part).networks.equals(FRONT.networks)
    slower = part.networks.assign(**{f"latency_ms@{device}": 2 * part.networks[f"latency_ms@{device}"]})
    changed = rejoined(FRONT, Front(slower, part.dominated, replace(part.info, command="x")))
    is_own = np.array(FRONT.precisions) == precision
    before, after = (front.networks.set_index(["arch", "precision"])["latency_ms@pi"] for front in (FRONT, changed))
    factor = (after / before).loc[list(zip(FRONT.networks["arch"], FRONT.precisions, strict=True))].to_numpy()
    assert factor == pytest.approx(np.where(is_own, 2.0, 1.0))


def test_a_device_that_measures_none_of_it_is_refused() -> None:
    with pytest.raises(SearchError, match=r"it knows pi-int8, pi and not phone"):
        part_measured_by(FRONT, "phone")
    alone = Front(FRONT.networks[np.array(FRONT.precisions) == "int8"], FRONT.dominated, FRONT.info)
    with pytest.raises(SearchError, match="it has none in fp32, which pi takes; name another device: pi-int8"):
        part_measured_by(alone, "pi")
    plain = run_study(twin_problem(latencies=[TwinLatency("phone")], losses=()), seed=0, effort=Effort(trials=16, evaluations=300))
    assert part_measured_by(plain, "phone") is plain


def test_a_promise_names_what_measures_the_network_in_its_precision() -> None:
    for precision, device in (("int8", "pi-int8"), ("fp32", "pi")):
        network = FRONT.candidate(FRONT.precisions.index(precision))
        for asked in (None, "pi", device):
            fields, _ = promise_of(network, FRONT, asked)
            assert (fields["device"], fields["conditions"]["precision"]) == (device, precision)
            assert fields["latency_ms"] == network.latencies["pi"].latency_ms
    with pytest.raises(SearchError, match="'phone' is none of pi"):
        promise_of(FRONT.candidate(0), FRONT, "phone")
    assert json.loads(FRONT.networks["arch"].iloc[0])["space"] == SPACE.name


@pytest.mark.slow
def test_tables_of_a_processor_in_two_precisions_are_searched_and_their_networks_timed() -> None:
    """With ONNX Runtime, from the first block to networks in int8 and float32 that are timed."""
    policy, rng = TimingPolicy(min_rounds=5, max_rounds=5, energy_s=0.0), np.random.default_rng(0)
    devices = (get_device("local-cpu"), replace(get_device("local-cpu"), name="cpu-int8", precision="int8"))
    tables = [build_table(SPACE, device, resolutions=SMALL.resolutions, rng=rng, policy=policy) for device in devices]
    archs = sample_stratified(SMALL, 20, rng)
    predictor = AccuracyPredictor.fit(SMALL, archs, FakeAccuracy()(archs), rng)
    gains = losses_of(SPACE, slope=0.0, noise=0.0, precision="int8")
    front = search(predictor, tables, losses=[gains], resolutions=SMALL.resolutions, trials=32, evaluations=1500)
    assert (front.device_names, set(front.conditions)) == (("local-cpu",), {"local-cpu", "cpu-int8"})
    for device in devices:
        if measuring_devices(front)[device.name] in front.precisions:
            found = query_verified(front, SPACE, Budget({"latency_ms": "10s"}), device, rng=rng, policy=policy, processes=1, most_rounds=1)
            assert found.kept[0].candidate.precision == device.precision
            front = found.front
    assert {each.device for each in front.info.verified} == {front.info.measured_by("local-cpu", each) for each in front.precisions}
