from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from ofa.errors import ArchError, FileError, SearchError, SpaceError
from ofa.families import get_space
from search.features import features
from search.predictor import AccuracyPredictor, read_results, sample_stratified
from search.regression import CANDIDATES, Candidate, refit
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
    assert tau > 0.9


def test_its_deviations_are_of_the_size_of_its_errors(predictor: AccuracyPredictor) -> None:
    archs = sample_stratified(SPACE, 200, np.random.default_rng(6))
    mean, std = predictor.predict(archs)
    errors = np.abs(mean - FakeAccuracy(noise=0.002)(archs))
    assert 0.8 <= np.mean(errors <= 1.645 * std) <= 0.99


def test_a_loaded_predictor_is_the_same(predictor: AccuracyPredictor, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    predictor.save(path)
    loaded = AccuracyPredictor.load(path, SPACE)
    archs = sample_stratified(SPACE, 50, np.random.default_rng(3))
    assert np.array_equal(loaded(archs), predictor(archs))
    assert loaded.provenance == predictor.provenance
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_it_serves_a_smaller_space_of_the_same_name(tmp_path: Path) -> None:
    archs = sample_stratified(SMALL, 40, np.random.default_rng(0))
    fitted = AccuracyPredictor.fit(SMALL, archs, FakeAccuracy()(archs), np.random.default_rng(0))
    fitted.save(tmp_path / "p.parquet")
    loaded = AccuracyPredictor.load(tmp_path / "p.parquet")
    others = sample_stratified(SMALL, 30, np.random.default_rng(1))
    assert loaded(others) == pytest.approx(fitted(others), abs=1e-9)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
def test_each_regression_is_rebuilt_from_its_parameters(candidate: Candidate) -> None:
    archs = sample_stratified(SPACE, 40, np.random.default_rng(0))
    x_NF, y_N = features(SPACE, archs), FakeAccuracy()(archs)
    fitted = candidate.fit(x_NF, y_N)
    again = refit(candidate.name, fitted.parameters, x_NF, y_N)
    assert np.array_equal(fitted.predict(x_NF)[0], again.predict(x_NF)[0])
    with pytest.raises(ValueError, match="no regression"):
        refit("oracle", None, x_NF, y_N)


def test_no_networks_are_no_accuracies(predictor: AccuracyPredictor) -> None:
    assert predictor([]).shape == (0,)


def test_networks_of_another_space_are_refused(predictor: AccuracyPredictor, tmp_path: Path) -> None:
    other = get_space("ofa-proxyless-tiny")
    with pytest.raises(SpaceError, match=f"{SPACE.name} and got a network of {other.name}"):
        predictor([other.smallest()])
    predictor.save(tmp_path / "p.parquet")
    with pytest.raises(SpaceError, match=f"of {SPACE.name} and {other.name} is asked for"):
        AccuracyPredictor.load(tmp_path / "p.parquet", other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, y: (a[:9], y[:9]), "at least 10 networks"),
        (lambda a, y: (a, y[:-1]), "one accuracy"),
        (lambda a, y: (a, np.full(len(a), 0.5)), "all 12 networks have accuracy 0.5"),
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
    predictor.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileError, match="damaged"):
        AccuracyPredictor.load(path)


def test_results_come_from_csv(tmp_path: Path) -> None:
    archs = sample_stratified(SPACE, 12, np.random.default_rng(0))
    path = tmp_path / "results.csv"
    accuracies = FakeAccuracy()(archs)
    pd.DataFrame({"arch": [json.dumps(arch.to_json()) for arch in archs], "accuracy": accuracies}).to_csv(path, index=False)
    read, values = read_results(path)
    assert read == archs
    assert values == pytest.approx(accuracies)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("arch\n{}\n", ArchError, "keys space"),
        ('arch,top1\n"[]",1\n', ArchError, "object"),
        ("accuracy\n0.5\n", FileError, "no column 'arch'"),
        ("arch,accuracy\nnonsense,0.5\n", FileError, "correct it"),
        ("", FileError, "correct it"),
    ],
)
def test_a_csv_file_of_something_else_is_refused(text: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(error, match=words):
        read_results(path)
    with pytest.raises(FileError, match="check the path"):
        read_results(tmp_path / "absent.csv")
