from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa.arch import Arch
from ofa.errors import SearchError
from ofa.space import Space
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.active_learning import fit_actively
from search.predictor.features import log_macs
from search.predictor.sampling import sample_stratified
from tests.search.fakes import SMALL, SPACE, FakeAccuracy


def fitted(nets: int, space: Space = SPACE, seed: int = 0, **options: int) -> tuple[AccuracyPredictor, FakeAccuracy]:
    measure = FakeAccuracy(space, noise=0.002)
    return fit_actively(space, measure, nets=nets, rng=np.random.default_rng(seed), **options), measure


@pytest.mark.parametrize(("nets", "rounds"), [(10, 3), (11, 3), (37, 3), (20, 0)])
def test_it_measures_exactly_so_many_networks_and_none_twice(nets: int, rounds: int) -> None:
    predictor, measure = fitted(nets, rounds=rounds)
    assert len(measure.asked) == len(set(measure.asked)) == predictor.networks == nets


def test_the_rounds_come_after_a_stratified_sample_that_is_judged_apart() -> None:
    predictor, measure = fitted(40, rounds=2)
    fair = predictor.fair_trust
    assert fair is not None
    assert fair.networks == 16
    assert set(measure.asked[:16]) == set(sample_stratified(SPACE, 16, np.random.default_rng(0)))
    assert predictor.provenance["fair_sample"]["networks"] == 16
    plain, _ = fitted(20, rounds=0)
    assert plain.fair_trust is None
    assert "fair_sample" not in plain.provenance


def test_the_generator_decides() -> None:
    (_, first), (_, again), (_, other) = (fitted(24, seed=seed, rounds=2) for seed in (0, 0, 1))
    assert first.asked == again.asked
    assert set(first.asked) != set(other.asked)


def test_a_space_of_few_networks_can_be_measured_whole() -> None:
    space = SMALL.restrict(depth=[0])
    predictor, measure = fitted(space.size, space, rounds=3)
    assert predictor.networks == len(set(measure.asked)) == space.size == 64


def test_chosen_networks_are_better_than_others_of_their_size() -> None:
    _, measure = fitted(60, rounds=3)
    truth = FakeAccuracy()
    chosen, others = measure.asked[24:], SPACE.sample_leaning_rows(2000, np.random.default_rng(5))
    size_N, accuracy_N = log_macs(SPACE, others), truth([SPACE.decode(row) for row in others.tolist()])
    sizes, accuracies = log_macs(SPACE, SPACE.encode_all(chosen)), truth(chosen)
    better = [np.mean(accuracy_N[np.abs(size_N - size) < 0.1] < accuracy) for size, accuracy in zip(sizes, accuracies, strict=True)]
    assert np.median(better) > 0.9
    # And they are of all sizes.
    assert np.ptp(sizes) > 0.8 * np.ptp(size_N)


def test_it_tells_where_it_stands() -> None:
    seen: list[tuple[int, int, str]] = []
    fit_actively(
        SPACE,
        FakeAccuracy(),
        nets=24,
        rng=np.random.default_rng(0),
        rounds=2,
        progress=lambda done, total, text="": seen.append((done, total, text)),
    )
    assert [done for done, _, _ in seen] == [0, 10, 17, 24]
    assert {total for _, total, _ in seen} == {24}
    assert "round 1 of 2: 7" in seen[1][2]


@pytest.mark.parametrize("nets", [9, SMALL.size + 1])
def test_a_number_that_cannot_be_is_refused(nets: int) -> None:
    with pytest.raises(SearchError, match=f"10 to {SMALL.size} networks, but nets is {nets}"):
        fitted(nets, SMALL)


def test_wrong_measurements_are_refused_at_once() -> None:
    asked: list[int] = []

    def measure(archs: Sequence[Arch]) -> NDArray[np.float64]:
        asked.append(len(archs))
        return np.full(len(archs), np.nan)

    with pytest.raises(SearchError, match="nan"):
        fit_actively(SPACE, measure, nets=30, rng=np.random.default_rng(0))
    assert asked == [12]
