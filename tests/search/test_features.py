from __future__ import annotations

import numpy as np
import pytest

from ofa.errors import SearchError
from ofa.families import get_space, space_names
from ofa.space import Space
from search.features import features, log_macs, sample_stratified
from tests.search.fakes import SMALL, SPACE


@pytest.mark.parametrize("name", [name for name in space_names() if name.endswith("tiny")])
def test_each_active_gene_is_hot_once_and_skipped_ones_never(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(20)]
    x_NF = features(space, archs)
    for arch, row in zip(archs, x_NF, strict=True):
        active = 1 + len(arch.network) + len(arch.stages) + sum(len(block) for stage in arch.stages for block in stage)
        assert row[:-1].sum() == active
    assert np.array_equal(x_NF[:, -1], log_macs(space, archs))


def test_different_networks_have_different_features() -> None:
    rng = np.random.default_rng(1)
    archs = list({SPACE.sample(rng) for _ in range(300)})
    assert len(np.unique(features(SPACE, archs)[:, :-1], axis=0)) == len(archs)


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-mbv3-w1.0", "ofa-resnet50"])
def test_a_stratified_sample_covers_the_space(name: str) -> None:
    space = get_space(name)
    archs = sample_stratified(space, 60, np.random.default_rng(0))
    assert len(set(archs)) == 60
    assert space.smallest() in archs
    assert space.largest() in archs
    size_N = log_macs(space, archs)
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
