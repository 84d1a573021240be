"""The statistics, on timers whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from devices.runtimes import Timer
from devices.timing import Timing, TimingPolicy, halves_ratio, measure_rounds, median_half_width, warm_up
from ofa.errors import DeviceError


def nobody(done: int, most: int) -> None:
    """Is told of rounds."""


POLICY = TimingPolicy(min_rounds=20, max_rounds=40)


class Machine:
    """Gives timers of known cost; its speed and its noise may change."""

    def __init__(self, *, noise: float = 0.0, slowness: Callable[[int], float] = lambda calls: 1.0, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.slowness = slowness
        self.calls = 0
        self.order: list[float] = []

    def timer(self, cost_ms: float) -> Timer:
        def timed(calls: int) -> float:
            self.calls += 1
            self.order.append(cost_ms)
            return 1e-3 * calls * cost_ms * self.slowness(self.calls) * float(np.exp(self.noise * self.rng.standard_normal()))

        return timed


def samples(machine: Machine, costs: dict[str, float], policy: TimingPolicy = POLICY) -> dict[str, Timing]:
    timers = [machine.timer(cost) for cost in costs.values()]
    calls = [warm_up(timer, policy) for timer in timers]
    samples_RN = measure_rounds(timers, calls, policy=policy, rng=np.random.default_rng(1), on_round=nobody)
    return {key: Timing.of(samples_RN[:, i]) for i, key in enumerate(costs)}


def medians(machine: Machine, costs: dict[str, float], policy: TimingPolicy = POLICY) -> dict[str, float]:
    return {key: timing.median_ms for key, timing in samples(machine, costs, policy).items()}


COSTS = {f"network {i}": 0.05 * 1.15**i for i in range(30)}


def test_without_noise_the_cost_is_found() -> None:
    assert medians(Machine(), COSTS) == pytest.approx(COSTS)


def test_a_machine_that_changes_its_speed_between_rounds_does_not_matter() -> None:
    # Slow and fast for a few rounds each: half of the samples would be far off.
    found = medians(Machine(noise=0.01, slowness=lambda calls: 1.5 if calls // 400 % 2 else 1.0), COSTS)
    ratios = np.array([found[key] / cost for key, cost in COSTS.items()])
    assert np.abs(ratios / np.median(ratios) - 1).max() < 0.02


def test_statistics_are_of_the_samples() -> None:
    machine = Machine(noise=0.1)
    timing = samples(machine, {"a": 2.0})["a"]
    assert timing.min_ms < timing.median_ms < timing.p90_ms
    assert 0.05 < timing.std_ms / timing.median_ms < 0.2
    assert timing.repeats == POLICY.max_rounds


def test_a_network_that_drifts_beside_the_others_is_seen() -> None:
    assert halves_ratio(np.array([1.0, 1.01, 0.99, 1.0])) == pytest.approx(1.0, abs=0.01)
    assert halves_ratio(np.array([1.0, 1.0, 1.2, 1.2])) == pytest.approx(1.2)


def test_a_timing_is_brought_to_another_speed() -> None:
    timing = Timing(median_ms=2.0, p90_ms=3.0, min_ms=1.0, std_ms=0.5, repeats=9, energy_mj=7.0)
    assert timing.at_speed(2.0) == Timing(median_ms=1.0, p90_ms=1.5, min_ms=0.5, std_ms=0.25, repeats=9, energy_mj=7.0)


def test_few_networks_keep_their_own_noise() -> None:
    # Divided by its own round's speed, a single network would look as if it had none.
    samples_RN = measure_rounds([Machine(noise=0.1).timer(1.0)], [1], policy=POLICY, rng=np.random.default_rng(0), on_round=nobody)
    assert samples_RN.std() > 0.05


def test_it_stops_when_medians_are_tight_and_goes_on_to_the_limit_when_not() -> None:
    def rounds(noise: float) -> int:
        timers = [Machine(noise=noise, seed=i).timer(1.0) for i in range(6)]
        return len(measure_rounds(timers, [1] * 6, policy=POLICY, rng=np.random.default_rng(0), on_round=nobody))

    assert rounds(0.0) == POLICY.min_rounds
    assert rounds(0.3) == POLICY.max_rounds


def test_the_time_limit_counts_after_the_least_rounds() -> None:
    policy = TimingPolicy(min_rounds=3, max_rounds=1000, time_limit_s=1e-9)
    timers = [Machine(noise=1.0).timer(1.0) for _ in range(6)]
    assert len(measure_rounds(timers, [1] * 6, policy=policy, rng=np.random.default_rng(0), on_round=nobody)) == 3


def test_the_first_round_is_discarded() -> None:
    samples_RN = measure_rounds(
        [Machine(slowness=lambda calls: 100.0 if calls <= 2 else 1.0).timer(1.0)],
        [1],
        policy=POLICY,
        rng=np.random.default_rng(0),
        on_round=nobody,
    )
    assert samples_RN.max() == pytest.approx(1.0)


def test_rounds_are_in_another_order_each_time() -> None:
    machine = Machine()
    measure_rounds(
        [machine.timer(cost) for cost in range(1, 9)],
        [1] * 8,
        policy=POLICY,
        rng=np.random.default_rng(0),
        on_round=nobody,
    )
    orders = {tuple(machine.order[start : start + 16]) for start in range(0, len(machine.order), 16)}
    assert len(orders) > POLICY.min_rounds / 2


def test_a_sample_of_a_short_call_is_many_calls() -> None:
    assert warm_up(Machine().timer(0.01), TimingPolicy(sample_ms=1.0)) == pytest.approx(100, abs=1)
    assert warm_up(Machine().timer(7.0), TimingPolicy(sample_ms=1.0)) == 1


def test_warming_up_goes_on_until_calls_are_stable() -> None:
    machine = Machine(slowness=lambda calls: 1 + 10 / calls**2)
    warm_up(machine.timer(5.0), POLICY)
    assert 5 < machine.calls < 30


def test_the_interval_of_the_median_is_honest() -> None:
    samples_RN = np.random.default_rng(0).lognormal(sigma=0.1, size=(30, 2000))
    errors = np.abs(np.median(samples_RN, axis=0) - 1) / np.median(samples_RN, axis=0)
    # Half widths are symmetric, the interval is not: about 95 %.
    assert (errors <= median_half_width(samples_RN)).mean() > 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        *({"tolerance": 0.0}, {"min_rounds": 1}, {"min_rounds": 70}, {"group_size": 0}, {"energy_s": -1.0}, {"sample_ms": float("nan")}),
        *({"sample_ms": float("inf")}, {"time_limit_s": 1e300}, {"max_rounds": 10**30}, {"group_size": 1.5}, {"tolerance": "tight"}),
    ],
)
def test_an_impossible_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DeviceError, match=r"(of|in) a timing policy"):
        TimingPolicy(**wrong)  # type: ignore[arg-type]
