from __future__ import annotations

import numpy as np
import pytest

from ofa.arrays import Floats
from search.predictor.ensemble import Ensemble, Scale, cross_validate, kernels
from search.predictor.features import feature_map
from search.predictor.sampling import sample_stratified
from search.predictor.validation import interval_width, trust_of
from tests.search.fakes import SPACE, FakeAccuracy

FEATURES = feature_map(SPACE).features


def data(count: int, seed: int = 0, noise: float = 0.002) -> tuple[Floats, Floats]:
    archs = sample_stratified(SPACE, count, np.random.default_rng(seed))
    return feature_map(SPACE)(SPACE.encode_all(archs)), FakeAccuracy(noise=noise)(archs)


@pytest.mark.parametrize("margin", [None, 2.0, 0.3])
def test_a_scale_can_be_undone(margin: float | None) -> None:
    accuracy = np.array([0.1, 0.5, 0.7, 0.72])
    scale = Scale.of(accuracy, margin)
    assert scale.down(scale.up(accuracy)) == pytest.approx(accuracy)
    assert (scale.up(accuracy).mean(), scale.up(accuracy).std()) == pytest.approx((0, 1))
    step = (scale.up(accuracy + 1e-6) - scale.up(accuracy - 1e-6)) / 2e-6
    assert scale.slope(accuracy) == pytest.approx(step, rel=1e-5)


def test_near_the_ceiling_a_point_is_worth_more() -> None:
    slope = Scale.of(np.array([0.1, 0.5, 0.7]), 0.3).slope(np.array([0.1, 0.7]))
    assert slope[1] > 3 * slope[0]


def test_accuracies_that_are_all_equal_have_a_scale_too() -> None:
    scale = Scale.of(np.full(4, 0.5), 0.3)
    assert scale.down(scale.up(np.array([0.4]))) == pytest.approx([0.4])


def test_a_truth_that_saturates_gets_a_ceiling_and_a_straight_one_none() -> None:
    x_MF, _ = data(80)
    score = x_MF[:, [feature.kind == "macs" for feature in FEATURES]][:, 0]
    rng = np.random.default_rng(0)
    saturating = 0.7 - 0.4 * np.exp(-score) / np.exp(2) + 1e-4 * rng.normal(size=80)
    straight = 0.5 + 0.05 * score + 1e-4 * rng.normal(size=80)
    assert Ensemble.fit(FEATURES, x_MF, saturating).scale.ceiling is not None
    assert Ensemble.fit(FEATURES, x_MF, straight).parameters["margin"] in (None, 2.0)


def test_every_feature_is_seen_and_the_first_kernel_knows_stages() -> None:
    first, second = kernels(FEATURES)
    assert len(first.start) > len(second.start)
    for kernel in (first, second):
        seen = {int(column) for part in kernel.parts for column in part.columns}  # type: ignore[attr-defined]
        assert seen == set(range(len(FEATURES)))


def test_an_ensemble_is_rebuilt_from_its_parameters() -> None:
    x_MF, accuracy = data(40)
    fitted = Ensemble.fit(FEATURES, x_MF, accuracy)
    again = Ensemble(FEATURES, x_MF, accuracy, fitted.parameters)
    x_NF, _ = data(30, seed=1)
    assert np.array_equal(fitted.expected(x_NF), again.expected(x_NF))
    assert np.array_equal(fitted.deviation(x_NF), again.deviation(x_NF))


def test_what_is_far_from_all_networks_is_less_certain() -> None:
    x_MF, accuracy = data(60)
    ensemble = Ensemble.fit(FEATURES, x_MF[:30], accuracy[:30])
    assert ensemble.deviation(x_MF[50:]).mean() > 1.5 * ensemble.deviation(x_MF[:30]).mean()


def test_left_out_networks_are_not_fitted_to() -> None:
    x_MF, accuracy = data(60)
    start = Ensemble.fit(FEATURES, x_MF, accuracy).parameters
    left_out = cross_validate(FEATURES, x_MF, accuracy, folds=5, rng=np.random.default_rng(0), start=start)
    out = left_out.fold == 2
    ensemble = Ensemble.fit(FEATURES, x_MF[~out], accuracy[~out], start)
    assert left_out.accuracy[out] == pytest.approx(ensemble.expected(x_MF[out]))
    # What one of them has been measured as changes nothing that is said of its own fold.
    changed = np.where(out, accuracy - 0.05, accuracy)
    again = cross_validate(FEATURES, x_MF, changed, folds=5, rng=np.random.default_rng(0), start=start)
    assert np.array_equal(again.accuracy[out], left_out.accuracy[out])
    assert not np.array_equal(again.accuracy[~out], left_out.accuracy[~out])


def test_an_accuracy_above_the_ceiling_is_infinitely_far() -> None:
    x_MF, accuracy = data(40)
    high = accuracy.copy()
    high[20] = 1.0
    parameters = Ensemble.fit(FEATURES, x_MF, accuracy).parameters
    left_out = cross_validate(FEATURES, x_MF, high, folds=10, rng=np.random.default_rng(0), start=parameters)
    assert (left_out.score >= 0).all()
    trust = trust_of(left_out, high, np.ones(40, dtype=np.bool_))
    assert 0.8 <= trust.coverage <= 1
    assert np.isfinite(trust.half_width)


def test_the_width_is_the_conformal_quantile() -> None:
    # Of 19 scores the 18th: with the new network's own, 18 of 20 are at most as far.
    assert interval_width(np.arange(1.0, 20.0)) == 18.0
    assert interval_width(np.arange(1.0, 6.0)) == 5.0
