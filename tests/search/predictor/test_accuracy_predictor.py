from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import kendalltau

from ofa.errors import ArchError, FileError, SearchError, SpaceError
from ofa.families import derive, get_space
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.csv_results import read_results
from search.predictor.sampling import sample_stratified
from tests.resealed import write_parquet
from tests.search.fakes import SMALL, SPACE, FakeAccuracy


@pytest.fixture(scope="module")
def predictor() -> AccuracyPredictor:
    rng = np.random.default_rng(0)
    archs = sample_stratified(SPACE, 120, rng)
    return AccuracyPredictor.fit(SPACE, archs, FakeAccuracy(noise=0.002)(archs), rng)


def test_what_it_says_of_itself_holds_on_new_networks(predictor: AccuracyPredictor) -> None:
    rng = np.random.default_rng(5)
    archs = sample_stratified(SPACE, 200, rng)
    truth = FakeAccuracy(noise=0.002)(archs)
    predicted = predictor(archs)
    tau, rmse = kendalltau(predicted, truth).statistic, np.sqrt(np.mean((predicted - truth) ** 2))
    assert predictor.kendall_tau == pytest.approx(tau, abs=0.05)
    assert predictor.rmse == pytest.approx(rmse, rel=0.5)
    assert tau > 0.95
    trust = predictor.trust
    known = {
        "networks": 120,
        "kendall_tau": trust.kendall_tau,
        "rmse": trust.rmse,
        "coverage": trust.coverage,
        "half_width": trust.half_width,
    }
    assert predictor.provenance == {
        **{"source": "predicted", "metric": "accuracy", "model": "2 Gaussian processes"},
        **known,
        "resolutions": [16, 24, 32],
    }


def test_its_intervals_hold_nine_of_ten_new_networks(predictor: AccuracyPredictor) -> None:
    inside, stated = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        archs = sample_stratified(SPACE, 60, rng)
        fitted = AccuracyPredictor.fit(SPACE, archs, FakeAccuracy(noise=0.002)(archs), rng)
        others = sample_stratified(SPACE, 300, np.random.default_rng(10 + seed))
        low, high = fitted.interval(others)
        measured = FakeAccuracy(noise=0.002)(others)
        inside.append(np.mean((low <= measured) & (measured <= high)))
        stated.append(fitted.trust.coverage)
        assert fitted.trust.half_width == pytest.approx(np.mean(high - low) / 2, rel=0.5)
    assert 0.85 <= np.mean(inside) <= 0.97
    assert 0.82 <= np.mean(stated) <= 0.98
    low, high = predictor.interval(others)
    assert ((low <= predictor(others)) & (predictor(others) <= high)).all()


def test_more_networks_make_a_better_predictor(predictor: AccuracyPredictor) -> None:
    archs = sample_stratified(SPACE, 30, np.random.default_rng(0))
    small = AccuracyPredictor.fit(SPACE, archs, FakeAccuracy(noise=0.002)(archs), np.random.default_rng(0))
    assert predictor.rmse < small.rmse
    assert predictor.trust.half_width < small.trust.half_width


def test_rows_and_archs_are_predicted_alike(predictor: AccuracyPredictor) -> None:
    rows_NC = predictor.space.sample_rows(700, np.random.default_rng(0))
    archs = [predictor.space.decode(row) for row in rows_NC.tolist()]
    assert predictor.of_rows(rows_NC) == pytest.approx(predictor(archs), abs=1e-12)
    one_by_one = np.concatenate([predictor.of_rows(row[None]) for row in rows_NC[:20]])
    assert one_by_one == pytest.approx(predictor.of_rows(rows_NC)[:20], abs=1e-12)
    for rows, by_archs in zip(predictor.interval_of_rows(rows_NC), predictor.interval(archs), strict=True):
        assert rows == pytest.approx(by_archs, abs=1e-12)


def test_the_same_data_and_generator_make_the_same_predictor() -> None:
    archs = sample_stratified(SPACE, 30, np.random.default_rng(0))
    accuracies = FakeAccuracy(noise=0.002)(archs)
    first, again = (AccuracyPredictor.fit(SPACE, archs, accuracies, np.random.default_rng(1)) for _ in range(2))
    assert first.provenance == again.provenance
    assert np.array_equal(first(archs), again(archs))


def test_a_network_that_was_measured_twice_counts_once_with_its_mean() -> None:
    archs = sample_stratified(SPACE, 30, np.random.default_rng(0))
    accuracies = FakeAccuracy(noise=0.002)(archs)
    twice = AccuracyPredictor.fit(SPACE, archs * 2, np.concatenate([accuracies + 0.01, accuracies - 0.01]), np.random.default_rng(1))
    once = AccuracyPredictor.fit(SPACE, archs, accuracies, np.random.default_rng(1))
    assert twice.networks == twice.trust.networks == 30
    assert twice(archs) == pytest.approx(once(archs), abs=1e-4)


def test_resolutions_beyond_those_measured_are_refused() -> None:
    middle = SPACE.restrict(resolution=[24])
    archs = sample_stratified(middle, 30, np.random.default_rng(0))
    predictor = AccuracyPredictor.fit(SPACE, archs, FakeAccuracy()(archs), np.random.default_rng(0))
    assert predictor.space == middle
    assert predictor.provenance["resolutions"] == [24]
    with pytest.raises(ArchError, match=r"resolution must be one of \[24\]"):
        predictor([SPACE.largest()])


def test_aspect_ratios_beyond_those_measured_are_refused() -> None:
    space = derive(SPACE, "wide", resolutions=[16, (16, 36), 32])
    archs = sample_stratified(space.restrict(resolution=[16, 32]), 30, np.random.default_rng(0))
    predictor = AccuracyPredictor.fit(space, archs, np.random.default_rng(1).random(30), np.random.default_rng(0))
    assert predictor.space.resolutions == (16, 32)
    with pytest.raises(ArchError, match=r"resolution must be one of \[16, 32\] in wide, but got 16x36"):
        predictor([space.largest((16, 36))])


def test_accuracies_of_noise_alone_are_said_to_be_that() -> None:
    archs = sample_stratified(SPACE, 60, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    predictor = AccuracyPredictor.fit(SPACE, archs, 0.5 + 0.02 * rng.standard_normal(60), rng)
    assert abs(predictor.kendall_tau) < 0.3
    assert predictor.rmse == pytest.approx(0.02, rel=0.3)
    low, high = predictor.interval(archs)
    assert np.mean(high - low) == pytest.approx(2 * 1.645 * 0.02, rel=0.4)


def test_accuracies_in_a_few_steps_up_to_all_right_are_fitted() -> None:
    archs = sample_stratified(SPACE, 40, np.random.default_rng(0))
    # As of 20 images, and the best without an error.
    steps = np.round(20 * np.linspace(0.6, 1.0, 40)) / 20
    predictor = AccuracyPredictor.fit(SPACE, archs, steps, np.random.default_rng(0))
    low, high = predictor.interval(archs)
    assert ((low >= 0) & (high <= 1)).all()
    assert predictor.kendall_tau > 0.7


def test_ten_networks_suffice_even_if_nine_are_equal() -> None:
    archs = sample_stratified(SPACE, 10, np.random.default_rng(0))
    accuracies = np.where(np.arange(10) == 4, 0.6, 0.5)
    predictor = AccuracyPredictor.fit(SPACE, archs, accuracies, np.random.default_rng(0))
    assert np.isfinite(predictor(archs)).all()
    assert all(np.isfinite(value) for value in (predictor.kendall_tau, predictor.rmse, predictor.trust.half_width))


def test_a_network_beyond_all_that_was_expected_leaves_every_accuracy_possible(tmp_path: Path) -> None:
    """Of ten networks the farthest decides the width, and one above the others' ceiling is infinitely far."""
    archs = sample_stratified(SPACE, 10, np.random.default_rng(0))
    accuracies = 0.5 - np.exp(-np.arange(10.0)) / 10
    accuracies[4] = 0.9
    fitted = AccuracyPredictor.fit(SPACE, archs, accuracies, np.random.default_rng(0))
    fitted.save(tmp_path / "p.parquet")
    for predictor in (fitted, AccuracyPredictor.load(tmp_path / "p.parquet")):
        assert predictor.trust.half_width == 1
        assert [set(end.tolist()) for end in predictor.interval(archs)] == [{0.0}, {1.0}]


@pytest.mark.parametrize("name", ["ofa-resnet50-tiny", "ofa-proxyless-tiny", "ofa-mbv3-w1.0"])
def test_it_fits_every_family(name: str) -> None:
    space = get_space(name)
    archs = sample_stratified(space, 60, np.random.default_rng(0))
    predictor = AccuracyPredictor.fit(space, archs, FakeAccuracy(space)(archs), np.random.default_rng(0))
    assert predictor.kendall_tau > 0.8


def test_figures_of_a_fair_sample_go_by_it_alone() -> None:
    archs = sample_stratified(SPACE, 40, np.random.default_rng(0))
    accuracies = FakeAccuracy(noise=0.002)(archs)
    fair = np.arange(40) % 2 == 0
    predictor = AccuracyPredictor.fit(SPACE, archs, accuracies, np.random.default_rng(0), fair=fair)
    assert predictor.fair_trust is not None
    assert (predictor.trust.networks, predictor.fair_trust.networks) == (40, 20)
    assert predictor.fair_trust.rmse != predictor.rmse


def test_a_loaded_predictor_is_the_same(predictor: AccuracyPredictor, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    predictor.save(path)
    loaded = AccuracyPredictor.load(path, SPACE)
    archs = sample_stratified(SPACE, 50, np.random.default_rng(3))
    assert np.array_equal(loaded(archs), predictor(archs))
    assert loaded.provenance == predictor.provenance
    assert all(np.array_equal(*ends) for ends in zip(loaded.interval(archs), predictor.interval(archs), strict=True))
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_it_serves_a_smaller_space_of_the_same_name(tmp_path: Path) -> None:
    archs = sample_stratified(SMALL, 40, np.random.default_rng(0))
    fitted = AccuracyPredictor.fit(SMALL, archs, FakeAccuracy()(archs), np.random.default_rng(0))
    fitted.save(tmp_path / "p.parquet")
    loaded = AccuracyPredictor.load(tmp_path / "p.parquet")
    others = sample_stratified(SMALL, 30, np.random.default_rng(1))
    assert loaded(others) == pytest.approx(fitted(others), abs=1e-9)


def test_no_networks_are_no_accuracies(predictor: AccuracyPredictor) -> None:
    assert predictor([]).shape == (0,)


def test_networks_of_another_space_are_refused(predictor: AccuracyPredictor, tmp_path: Path) -> None:
    other = get_space("ofa-proxyless-tiny")
    with pytest.raises(SpaceError, match=f"{SPACE.name} and got a network of {other.name}"):
        predictor([other.smallest()])
    predictor.save(tmp_path / "p.parquet")
    with pytest.raises(SpaceError, match=f"of {SPACE.name} and {other.name} is asked for"):
        AccuracyPredictor.load(tmp_path / "p.parquet", other)
    with pytest.raises(SpaceError, match="is of 10 and 7 are asked for"):
        AccuracyPredictor.load(tmp_path / "p.parquet", get_space(SPACE.name, 7))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, y: (a[:9], y[:9]), "at least 10 networks, but got 9"),
        (lambda a, y: (a[:9] * 2, np.tile(y[:9], 2)), "at least 10 networks, but got 9"),
        (lambda a, y: (a * 2, np.concatenate([y, 1 - y])), "all 12 have 50.0%"),
        (lambda a, y: (a, y[:-1]), "one accuracy"),
        (lambda a, y: (a, np.full(len(a), 0.5)), "all 12 have 50.0%"),
        (lambda a, y: (a, 100 * y), "divide percentages"),
        (lambda a, y: (a, np.where(np.arange(len(y)) == 3, np.nan, y)), "nan"),
    ],
)
def test_data_that_teach_nothing_are_refused(change: object, words: str) -> None:
    archs = sample_stratified(SPACE, 12, np.random.default_rng(0))
    accuracies = FakeAccuracy()(archs)
    with pytest.raises(SearchError, match=words):
        AccuracyPredictor.fit(SPACE, *change(archs, accuracies), np.random.default_rng(0))  # type: ignore[operator]


def test_files_that_are_no_predictor_are_refused(predictor: AccuracyPredictor, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(FileError, match="check the path"):
        AccuracyPredictor.load(path)
    pd.DataFrame({"arch": ["{}"], "accuracy": [0.5]}).to_parquet(path)
    with pytest.raises(FileError, match="is another Parquet file"):
        AccuracyPredictor.load(path)
    table = pa.table({"arch": ["{}"], "accuracy": [0.5]})
    for schema, words in (
        (1, r"must have schema 2 or newer, but has 1 .*; make it again with: ofa predictor fit"),
        (2, "'num_classes' is missing"),
    ):
        about = {"space": SPACE.name, "kind": "predictor", "schema": schema, "ofa": "0.1.0"}
        pq.write_table(table.replace_schema_metadata({"ofa": json.dumps(about)}), path)
        with pytest.raises(FileError, match=words):
            AccuracyPredictor.load(path)
    predictor.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileError, match="damaged"):
        AccuracyPredictor.load(path)


@pytest.mark.parametrize("wrong", [{"margin": 1e300}, {"margin": 0.5}, {"processes": [[1e308]]}, {"processes": []}, {"first": 1e308}])
def test_parameters_that_no_fit_finds_are_refused(wrong: dict[str, Any], predictor: AccuracyPredictor, tmp_path: Path) -> None:
    """Also where the checksum fits, because somebody made it so."""
    path = tmp_path / "p.parquet"
    predictor.save(path)
    table = pq.read_table(path)
    parameters = json.loads(table.schema.metadata[b"ofa"])["parameters"]
    parameters["processes"][0][0] = wrong.get("first", parameters["processes"][0][0])
    write_parquet(table, path, parameters={**parameters, **{key: value for key, value in wrong.items() if key != "first"}})
    with pytest.raises(FileError, match="whole predictor"):
        AccuracyPredictor.load(path)


FOLDER = os.environ.get("OFA_PUBLISHED")


@pytest.mark.skipif(FOLDER is None, reason="set OFA_PUBLISHED to the folder of published files")
def test_measured_imagenet_networks_are_ranked_from_a_hundred() -> None:
    space = get_space("ofa-mbv3-w1.0")
    archs, accuracies = read_results(Path(FOLDER or ".") / "ofa_mbv3_w1.0_imagenet_top1.csv", space)
    order = np.random.default_rng(0).permutation(len(archs))
    known, others = order[:100], order[100:]
    predictor = AccuracyPredictor.fit(space, [archs[i] for i in known], accuracies[known], np.random.default_rng(0))
    unseen = [archs[i] for i in others]
    assert kendalltau(predictor(unseen), accuracies[others]).statistic > 0.93
    assert np.sqrt(np.mean((predictor(unseen) - accuracies[others]) ** 2)) < 0.0013
    low, high = predictor.interval(unseen)
    assert 0.85 < np.mean((low <= accuracies[others]) & (accuracies[others] <= high)) < 0.96
