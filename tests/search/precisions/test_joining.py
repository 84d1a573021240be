"""Which tables are one device in several precisions, and what is then known of its networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ofa.errors import OfaError
from ofa.families import get_space
from ofa.space import Space
from search.budget import Budget
from search.precisions.joining import joined, same_device
from search.precisions.sources import AccuracyByPrecision, infos_of
from search.precisions.space import PrecisionSpace
from search.study import Effort, run_study
from tests.search.fakes import SMALL, SPACE, FakeAccuracy, FakeLatency, SlowAccuracy
from tests.search.precisions.twins import TWINS, FakeLoss, TwinLatency, twin_problem


def test_latencies_are_those_of_each_networks_precision() -> None:
    problem = twin_problem()
    over, (source,) = problem.space, problem.latencies
    assert isinstance(over, PrecisionSpace)
    assert (problem.devices, problem.objectives) == (("pi",), ("latency_high_ms@pi",))
    rows_NC = over.sample_rows(60, np.random.default_rng(0))
    found = source.estimates_of_rows(rows_NC)
    for single in TWINS:
        index = over.in_precision(rows_NC)[single.info.conditions.precision]
        alone = single.estimates_of_rows(SMALL.rows_in(SPACE, over.without(rows_NC)[index]))
        assert all(np.array_equal(own[index], other) for own, other in zip(found, alone, strict=True))
    assert {name: info.conditions.precision for name, info in infos_of(source).items()} == {"pi": "fp32", "pi-int8": "int8"}


def test_accuracies_are_less_what_is_lost_and_less_certain() -> None:
    problem = twin_problem()
    over, accuracy = problem.space, FakeAccuracy()
    assert isinstance(over, PrecisionSpace)
    rows_NC = over.sample_rows(60, np.random.default_rng(0))
    whole_NC = SMALL.rows_in(SPACE, over.without(rows_NC))
    base_N, (low_N, high_N) = accuracy.of_rows(whole_NC), problem.accuracy_intervals(rows_NC)
    index = over.in_precision(rows_NC)
    loss_N, _ = FakeLoss().losses_of_rows(whole_NC[index["int8"]])
    found_N = problem.accuracies(rows_NC)
    assert np.array_equal(found_N[index["fp32"]], base_N[index["fp32"]])
    assert found_N[index["int8"]] == pytest.approx(base_N[index["int8"]] - loss_N)
    assert (high_N - low_N)[index["fp32"]] == pytest.approx(0.02)
    assert (high_N - low_N)[index["int8"]] == pytest.approx(0.02 * 2**0.5)
    assert problem.accuracy.provenance["losses"] == {"int8": FakeLoss().provenance}


def test_accuracies_that_were_measured_are_remembered_without_the_loss(tmp_path: Any) -> None:
    over = twin_problem().space
    assert isinstance(over, PrecisionSpace)
    slow = SlowAccuracy(str(tmp_path / "log"), seconds=0)
    source = AccuracyByPrecision(space=over, accuracy=slow, losses={"int8": FakeLoss()})
    rows_NC = over.sample_rows(6, np.random.default_rng(0))
    twin_problem(SMALL).recall(rows_NC, {"accuracy": np.full(6, 0.5)})  # of one that predicts nothing is remembered
    source.recall(rows_NC, np.full(6, 0.5))
    assert source.of_rows(rows_NC) == pytest.approx(np.full(6, 0.5))
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    "others",
    [
        (TwinLatency("pi2"),),  # one precision twice
        (TwinLatency("pi-int8", "int8", threads=4),),
        (TwinLatency("pi-int8", "int8", batch=2),),
        (TwinLatency("pi-int8", "int8", processor="another"),),
        (TwinLatency("pi-int8", "int8"), TwinLatency("pi-int8b", "int8")),
        (FakeLatency(device="paper"),),
    ],
)
def test_other_tables_stay_devices_of_their_own(others: tuple[FakeLatency, ...]) -> None:
    own = TwinLatency("pi", processor="one")
    found = joined(SMALL, FakeAccuracy(), [own, *others])
    assert (found.space, found.latencies) == (SMALL, (own, *others))


def test_the_machine_counts_where_both_say_it() -> None:
    one, other, unknown = (TwinLatency(processor=name).info for name in ("a", "b", None))
    assert not same_device(one, other)
    assert same_device(one, unknown)
    assert not same_device(FakeLatency().info, FakeLatency().info)  # of whose address nothing is known


class TimedLatency(TwinLatency):
    is_measured = True


MBV4 = get_space("ofa-mbv4")


@pytest.mark.parametrize(
    ("space", "latencies", "losses", "words"),
    [
        (SMALL, TWINS, (), r"needs the accuracy losses of int8, .* ofa predictor quantization RUN --precision int8 -o int8\.losses"),
        (SMALL, TWINS[:1], (FakeLoss(),), "losses of int8 need a table of a device in int8, but the tables are in fp32"),
        (SMALL, (), (FakeLoss(),), "the tables are in none"),
        (SMALL, TWINS, (FakeLoss(), FakeLoss()), "losses must come once per precision"),
        (SMALL, TWINS, (FakeLoss(space=MBV4),), "but that is ofa-mbv3-tiny with 10 classes and they are of ofa-mbv4 with 1000"),
        (SMALL, (*TWINS, FakeLatency()), (FakeLoss(),), "must have a table in each of fp32, int8, but paper has none in int8"),
        (SMALL, (TWINS[0], TwinLatency("pi", "int8")), (FakeLoss(),), "each device must come once"),
        (SMALL, (TWINS[0], TimedLatency("pi-int8", "int8")), (FakeLoss(),), "networks are timed one by one on pi-int8; build its table"),
    ],
)
def test_what_cannot_be_searched_over_precisions_is_refused(
    space: Space, latencies: tuple[Any, ...], losses: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(OfaError, match=words):
        joined(space, FakeAccuracy(), latencies, losses)


def test_one_table_in_int8_is_searched_with_its_losses() -> None:
    problem = twin_problem(latencies=TWINS[1:])
    front = run_study(problem, seed=0, effort=Effort(trials=16, evaluations=800))
    assert (front.device_names, set(front.precisions)) == (("pi-int8",), {"int8"})
    assert front.query(Budget({"weight_bytes": "1MB"}))[0].precision == "int8"
    plain = joined(SMALL, FakeAccuracy(), TWINS[1:])
    assert plain.space is SMALL


def test_half_precision_needs_no_losses() -> None:
    latencies = (TwinLatency("pi"), TwinLatency("pi-fp16", "fp16"), TwinLatency("pi-int8", "int8"))
    problem = twin_problem(latencies=latencies)
    assert isinstance(problem.space, PrecisionSpace)
    assert problem.space.precisions == ("int8", "fp16", "fp32")
    rows_NC = problem.space.rows_at(problem.space.sample_rows(10, np.random.default_rng(0)), "fp16")
    assert np.array_equal(problem.accuracies(rows_NC), problem.accuracies(problem.space.rows_at(rows_NC, "fp32")))
    without = joined(SMALL, FakeAccuracy(), latencies[:2])
    assert "losses" not in without.accuracy.provenance
    assert [source.device_name for source in without.latencies] == ["pi"]
