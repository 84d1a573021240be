from __future__ import annotations

import numpy as np
import pytest

from ofa.errors import SearchError
from ofa.families import get_space
from ofa.space import Space
from search.predictor.features import log_macs
from search.predictor.sampling import sample_stratified
from tests.search.fakes import SMALL, SPACE


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-mbv3-w1.0", "ofa-resnet50"])
def test_a_stratified_sample_covers_the_space(name: str) -> None:
    space = get_space(name)
    archs = sample_stratified(space, 60, np.random.default_rng(0))
    assert len(set(archs)) == 60
    assert space.smallest() in archs
    assert space.largest() in archs
    size_N = log_macs(space, space.encode_all(archs))
    assert (np.diff(size_N) >= 0).all()
    # No hole: every fifth of the range has a tenth of the networks or more.
    counts, _ = np.histogram(size_N, bins=5)
    assert counts.min() >= 6


def test_the_generator_decides_the_sample() -> None:
    first, again, other = (sample_stratified(SPACE, 20, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("space", [SMALL.restrict(depth=[0], resolution=SMALL.resolutions, kernel=[3])])
def test_a_whole_space_can_be_asked_for(space: Space) -> None:
    assert len(set(sample_stratified(space, space.size, np.random.default_rng(0)))) == space.size


@pytest.mark.parametrize("n", [1, SMALL.size + 1])
def test_a_sample_that_cannot_be_is_refused(n: int) -> None:
    with pytest.raises(SearchError, match=f"2 to {SMALL.size}"):
        sample_stratified(SMALL, n, np.random.default_rng(0))


def test_leaning_networks_reach_nearer_to_both_ends_than_random_ones() -> None:
    rng = np.random.default_rng(0)
    leaning_N, random_N = (log_macs(SPACE, rows) for rows in (SPACE.sample_leaning_rows(500, rng), SPACE.sample_rows(500, rng)))
    assert np.quantile(leaning_N, 0.05) < np.quantile(random_N, 0.05)
    assert np.quantile(leaning_N, 0.95) > np.quantile(random_N, 0.95)
    rows_NC = SPACE.sample_leaning_rows(50, rng)
    assert np.array_equal(SPACE.canonical(rows_NC), rows_NC)
