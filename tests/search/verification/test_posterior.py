from __future__ import annotations

import numpy as np
import pytest

from latency_tables.timing import NetworkTimes
from search.verification.posterior import Evidence


def times(truth_ms: np.ndarray, *, processes: int = 6, noise: float = 0.0, slowdown: float = 1.0, seed: int = 0) -> NetworkTimes:
    rng = np.random.default_rng(seed)
    times_PN = truth_ms * np.exp(noise * rng.standard_normal((processes, len(truth_ms))))
    return NetworkTimes(times_PN=times_PN, slowdowns=(slowdown,) * processes)


def test_what_is_measured_of_some_shifts_all() -> None:
    estimates_ms = np.linspace(5, 10, 11)
    evidence = Evidence(estimates_ms, doubt=0.01)
    assert evidence.likely_ms == pytest.approx(estimates_ms)
    evidence.add([4, 5, 6], times(1.1 * estimates_ms[[4, 5, 6]]))
    assert evidence.timed == (4, 5, 6)
    assert evidence.likely_ms == pytest.approx(1.1 * estimates_ms)
    assert evidence.measured_ms(5) == pytest.approx(1.1 * 7.5)


def test_a_slow_minute_counts_and_a_fast_one_does_not() -> None:
    for slowdown, counted in [(1.04, 1.04), (0.96, 1.0)]:
        evidence = Evidence(np.array([10.0]), doubt=0.01)
        evidence.add([0], times(np.array([10.0]), slowdown=slowdown))
        assert evidence.measured_ms(0) == pytest.approx(10 * slowdown)
        assert evidence.typical_ms(0) == pytest.approx(10)
        assert evidence.likely_ms[0] == pytest.approx(10 * counted)


def test_measurements_and_estimates_together_are_nearer_to_the_truth_than_either() -> None:
    rng = np.random.default_rng(0)
    truth_ms = rng.uniform(9.5, 10.5, 2000)
    estimates_ms = 0.95 * truth_ms * np.exp(0.01 * rng.standard_normal(2000))
    evidence = Evidence(estimates_ms, doubt=0.01)
    evidence.add(range(2000), times(truth_ms, noise=0.025))

    def error(guesses_ms: np.ndarray) -> float:
        return float(np.std(np.log(guesses_ms / truth_ms)))

    measured = error(np.array([evidence.typical_ms(i) for i in range(2000)]))
    assert error(evidence.likely_ms) < 0.8 * min(measured, error(estimates_ms))


def test_without_an_estimate_to_trust_the_measurement_is_all() -> None:
    evidence = Evidence(np.array([10.0, 20.0]), doubt=np.inf)
    evidence.add([0, 1], times(np.array([12.0, 15.0]), noise=0.02))
    assert evidence.likely_ms == pytest.approx([evidence.measured_ms(0), evidence.measured_ms(1)])


def test_a_network_that_is_timed_again_has_more_processes() -> None:
    evidence = Evidence(np.array([10.0, 11.0]), doubt=0.01)
    evidence.add([0], times(np.array([10.0]), noise=0.02))
    evidence.add([1, 0], times(np.array([11.0, 10.0]), noise=0.02, seed=1))
    assert (len(evidence.times_ms(0)), len(evidence.times_ms(1))) == (12, 6)
