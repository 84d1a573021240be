"""What networks lose by quantization: learned where there is something to learn, the mean elsewhere, with intervals that hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ofa.data import Splits
from ofa.errors import ArchError, FileError, OfaError, SearchError
from ofa.families import get_space
from ofa.journal import Journal
from ofa.training import demo_recipe
from search.advice import advice_on_losses
from search.predictor.measuring_losses import measure_losses
from search.predictor.quantization import QuantizationLoss
from search.predictor.sampling import sample_stratified
from tests.resealed import write_parquet
from tests.search.fakes import SMALL, SPACE
from tests.search.predictor.losses import ABOUT, losses_of

ROWS = SPACE.sample_rows(500, np.random.default_rng(1))
STEPS = ROWS[:, 0] - 1


def test_what_genes_tell_is_learned_and_intervals_hold() -> None:
    held, widths = [], []
    for seed in range(8):
        found = losses_of(SPACE, 24, seed=seed)
        expected_N, reach_N = found.losses_of_rows(ROWS)
        true_N = 0.01 - 0.01 * STEPS
        assert np.corrcoef(expected_N, true_N)[0, 1] > 0.9
        assert found.info.by_genes
        measured_N = true_N + 0.002 * np.random.default_rng(100 + seed).standard_normal(len(ROWS))
        held.append(np.mean(np.abs(measured_N - expected_N) <= reach_N))
        widths.append(reach_N.mean())
        assert found.info.trust.coverage >= 0.8
    assert 0.85 <= np.mean(held) <= 1
    assert np.mean(widths) < 0.01  # the losses themselves reach from 0 to 2 points


def test_where_nothing_is_to_be_learned_every_network_loses_the_mean() -> None:
    spreads = []
    for seed in range(5):
        found = losses_of(SPACE, 20, slope=0.0, seed=seed)
        expected_N, reach_N = found.losses_of_rows(ROWS)
        assert found.mean == pytest.approx(0.01, abs=0.003)
        assert expected_N.mean() == pytest.approx(found.mean, abs=0.003)
        spreads.append(expected_N.std())
        assert (reach_N > 0).all()
    assert np.median(spreads) < 0.001


def test_equal_losses_are_no_more_certain_than_one_image() -> None:
    found = losses_of(SPACE, 12, slope=0.0, noise=0.0)
    expected_N, reach_N = found.losses_of_rows(ROWS)
    assert expected_N == pytest.approx(np.full(len(ROWS), 0.01))
    assert found.info.trust.coverage == 1
    assert (reach_N >= 0).all()
    assert found.losses_of_rows(ROWS[:0])[0].shape == (0,)


def test_they_come_back_from_their_file(tmp_path: Path) -> None:
    found = losses_of(SMALL, metric="mAP")
    assert found.space == SPACE
    found.save(tmp_path / "losses")
    loaded = QuantizationLoss.load(tmp_path / "losses")
    assert loaded.info == found.info
    assert (loaded.provenance, loaded.space, loaded.span, loaded.precision) == (found.provenance, found.space, found.span, "int8")
    for mine, theirs in zip(found.losses_of_rows(ROWS), loaded.losses_of_rows(ROWS), strict=True):
        assert np.array_equal(mine, theirs)
    table = pq.read_table(tmp_path / "losses")
    for broken, words in ((table.slice(0, 4), "at least 10"), (table.drop_columns(["score"]), "column score")):
        write_parquet(broken, tmp_path / "broken")
        with pytest.raises(FileError, match=words):
            QuantizationLoss.load(tmp_path / "broken")


@pytest.mark.parametrize(
    ("nets", "scores", "error", "words"),
    [
        (9, 0.5, SearchError, "at least 10 different networks, but got 9"),
        (12, 1.5, SearchError, r"two scores in 0\.\.1"),
        (12, float("nan"), SearchError, r"two scores in 0\.\.1"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(nets: int, scores: float, error: type[OfaError], words: str) -> None:
    archs = sample_stratified(SPACE, nets, np.random.default_rng(0))
    with pytest.raises(error, match=words):
        QuantizationLoss.fit(SPACE, archs, np.full((nets, 2), scores), **ABOUT)
    with pytest.raises(SearchError, match="different networks"):
        QuantizationLoss.fit(SPACE, [archs[0]] * 12, np.full((12, 2), 0.5), **ABOUT)
    other = sample_stratified(get_space("ofa-mbv3-32px"), 12, np.random.default_rng(0))
    with pytest.raises(ArchError):
        QuantizationLoss.fit(SPACE, other, np.full((12, 2), 0.5), **ABOUT)


def test_few_images_and_intervals_that_do_not_hold_are_said() -> None:
    about = losses_of(SPACE).provenance
    assert advice_on_losses(about) == ()
    (images,) = advice_on_losses({**about, "judging_images": 232})
    assert "measured on 232 images, where one image is 0.43% of the score" in images
    (coverage,) = advice_on_losses({**about, "coverage": 0.6})
    assert "cover only 60% of left-out networks" in coverage


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Splits]:
    recipe = demo_recipe()
    return recipe.build_supernet(10), recipe.load_splits()


def test_networks_are_measured_in_both_precisions_and_kept(digits: tuple[Any, Splits], tmp_path: Path) -> None:
    supernet, splits = digits
    few = splits._replace(selection=splits.selection.subset(torch.arange(120)), train=splits.train.subset(torch.arange(200)))
    settings: dict[str, Any] = {"nets": 10, "rng": np.random.default_rng(0)}
    told: list[int] = []
    with Journal(tmp_path / "journal", doing="measuring") as journal:
        found = measure_losses(supernet, few, **settings, steps=journal, progress=lambda done, total, text="": told.append(done))
        assert len(journal) == 10
    assert told == [*range(11)]
    assert (found.info.fitted_images, found.info.judging_images, found.info.trust.networks) == (60, 60, 10)
    low, high = found.span
    assert -0.2 < low <= found.mean <= high < 0.2


def test_what_cannot_be_measured_is_refused(digits: tuple[Any, Splits]) -> None:
    supernet, splits = digits
    rng = np.random.default_rng(0)
    with pytest.raises(SearchError, match=r"\(int8\), but the precision is 'fp16'"):
        measure_losses(supernet, splits, precision="fp16", nets=10, rng=rng)
    with pytest.raises(SearchError, match=r"10 to .* networks, but nets is 3"):
        measure_losses(supernet, splits, nets=3, rng=rng)
    with pytest.raises(OfaError, match="at least 64 images"):
        measure_losses(supernet, splits._replace(selection=splits.selection.subset(torch.arange(40))), nets=10, rng=rng)
