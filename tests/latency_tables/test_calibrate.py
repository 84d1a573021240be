from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from devices import Device, Timing, TimingPolicy
from latency_tables import Estimator, LatencyTable, calibrate_table, check_table
from latency_tables.calibrate import sample_across_range
from latency_tables.check import compare
from latency_tables.correction import fit_correction
from ofa.errors import TableError
from ofa.families import get_space, lower
from ofa.space import Space


def drawn(rng: np.random.Generator, nets: int, *, noise: float, per_mib: float = 0.0) -> tuple[list[float], list[float], list[float]]:
    """Sums, weights and measurements of networks whose truth is known."""
    sums, mib = rng.uniform(5, 30, nets), rng.uniform(2, 8, nets)
    measured = (0.7 + 1.1 * sums + per_mib * mib) * np.exp(noise * rng.standard_normal(nets))
    return sums.tolist(), (mib * 2**20).tolist(), measured.tolist()


def test_an_affine_truth_is_found_exactly() -> None:
    correction = fit_correction(*drawn(np.random.default_rng(0), 20, noise=0.0))
    assert correction.intercept_ms == pytest.approx(0.7)
    assert correction.slope == pytest.approx(1.1)
    assert correction.half_width < 1e-9


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_weights_come_in_only_if_they_help(noise: float) -> None:
    rng = np.random.default_rng(0)
    assert fit_correction(*drawn(rng, 30, noise=noise, per_mib=0.5)).ms_per_weight_mib == pytest.approx(0.5, abs=10 * noise + 1e-9)
    without = [fit_correction(*drawn(rng, 30, noise=max(noise, 1e-3))).ms_per_weight_mib for _ in range(20)]
    assert sum(value == 0.0 for value in without) >= 15


def test_a_cache_that_overflows_is_seen_as_a_square() -> None:
    rng = np.random.default_rng(0)
    sums, sizes, _ = drawn(rng, 30, noise=0.0)
    truth = [0.7 + 1.1 * ms + 0.02 * (size / 2**20) ** 2 for ms, size in zip(sums, sizes, strict=True)]
    correction = fit_correction(sums, sizes, [ms * float(np.exp(0.002 * rng.standard_normal())) for ms in truth])
    assert correction.ms_per_weight_mib2 == pytest.approx(0.02, abs=0.01)
    assert correction.apply(20.0, 8 * 2**20).latency_ms == pytest.approx(0.7 + 22 + 0.02 * 64, rel=0.01)


def test_two_disturbed_networks_do_not_bend_it() -> None:
    sums, sizes, measured = drawn(np.random.default_rng(0), 20, noise=0.005)
    measured[3] *= 1.5
    measured[7] *= 2.0
    correction = fit_correction(sums, sizes, measured)
    assert correction.apply(20.0, 4 * 2**20).latency_ms == pytest.approx(0.7 + 1.1 * 20, rel=0.01)


@pytest.mark.parametrize("nets", [9, 20, 50])
@pytest.mark.parametrize("per_mib", [0.0, 0.5])
def test_a_90_percent_interval_holds_90_percent_of_networks_not_seen(nets: int, per_mib: float) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(40):
        correction = fit_correction(*drawn(rng, nets, noise=0.03, per_mib=per_mib))
        for total, size, measured in zip(*drawn(rng, 50, noise=0.03, per_mib=per_mib), strict=True):
            estimate = correction.apply(total, size)
            held.append(estimate.latency_low_ms <= measured <= estimate.latency_high_ms)
    assert 0.87 <= np.mean(held) <= 0.97


def test_networks_that_are_all_alike_are_no_error() -> None:
    correction = fit_correction([10.0] * 10, [2e6] * 10, [12.0] * 10)
    assert correction.apply(10.0, 2e6).latency_ms == pytest.approx(12.0)


def test_too_few_networks_cannot_be_honest() -> None:
    with pytest.raises(TableError, match="at least 9 networks, but there are 8"):
        fit_correction([1.0] * 8, [1.0] * 8, [1.0] * 8)


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-resnet50-tiny"])
def test_networks_are_spread_over_the_range(name: str, device: Device, quick: TimingPolicy) -> None:
    from latency_tables import build_table

    space = get_space(name)
    rng = np.random.default_rng(0)
    estimator = Estimator(space, build_table(space, device, rng=rng, policy=quick))
    archs = sample_across_range(space, estimator, 12, rng)
    sums = np.array(sorted(estimator.sums(arch)[0] for arch in archs))
    assert len(set(archs)) == 12
    assert sums[0] == pytest.approx(min(sums.min(), estimator.sums(space.smallest())[0]))
    assert sums[-1] == pytest.approx(estimator.sums(space.largest())[0])
    assert np.diff(sums).max() < 0.3 * np.ptp(sums)


def test_a_calibrated_table_predicts_networks_it_has_not_seen(
    table: LatencyTable, space: Space, device: Device, quick: TimingPolicy
) -> None:
    before = check_table(table, space, device, nets=15, rng=np.random.default_rng(5), policy=quick)
    calibrated = calibrate_table(table, space, device, nets=20, rng=np.random.default_rng(1), policy=quick)
    after = check_table(calibrated, space, device, nets=15, rng=np.random.default_rng(5), policy=quick)
    assert before.bias > 0.05, "the fake's networks take less than the sum of their blocks"
    assert np.isnan(before.inside_interval)
    assert abs(after.bias) < 0.02
    assert after.mean_error < 0.02
    assert after.inside_interval >= 0.6
    assert after.kendall > 0.9
    assert len(after.networks) == after.nets == 15
    assert after.slowdown == pytest.approx(1.0)
    assert calibrated.info.calibration.nets == 20
    assert table.correction is None, "calibrating makes a copy"


def test_few_processes_are_enough_for_a_calibration_and_a_noise_floor(
    table: LatencyTable, space: Space, device: Device, quick: TimingPolicy
) -> None:
    calibrated = calibrate_table(table, space, device, nets=9, rng=np.random.default_rng(1), policy=quick, processes=2)
    check = check_table(calibrated, space, device, nets=3, rng=np.random.default_rng(5), policy=quick, processes=2)
    assert calibrated.info.processes == 2
    assert check.noise_floor >= 0


def test_a_machine_that_became_slower_is_seen_and_divided_out(
    table: LatencyTable, space: Space, device: Device, quick: TimingPolicy
) -> None:
    faster = LatencyTable(table.rows.assign(median_ms=table.rows["median_ms"] * 0.8), table.info)
    now = check_table(table, space, device, nets=5, rng=np.random.default_rng(5), policy=quick)
    then = check_table(faster, space, device, nets=5, rng=np.random.default_rng(5), policy=quick)
    assert then.slowdown == pytest.approx(1.25)
    assert then.mean_error == pytest.approx(now.mean_error)


def test_a_machine_whose_speed_differs_from_process_to_process_widens_the_interval(
    table: LatencyTable, space: Space, device: Device, quick: TimingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latency_tables import timing

    steady = calibrate_table(table, space, device, nets=12, rng=np.random.default_rng(1), policy=quick).correction
    speeds = iter([1.0, 1.2, 1.1, 1.1, 1.1, 1.1])
    plain = timing.time_models

    def unsteady(*arguments: Any, **named: Any) -> dict[str, Timing]:
        speed = next(speeds)
        timings = plain(*arguments, **named)
        return {key: Timing(**{**asdict(timing), "median_ms": timing.median_ms * speed}) for key, timing in timings.items()}

    monkeypatch.setattr(timing, "time_models", unsteady)
    calibrated = calibrate_table(table, space, device, nets=12, rng=np.random.default_rng(1), policy=quick)
    assert steady is not None
    assert calibrated.correction is not None
    assert calibrated.correction.speed == pytest.approx(1.1 * steady.speed)
    assert calibrated.correction.speed_spread == pytest.approx(0.1 / 1.1, abs=0.01)
    assert calibrated.correction.half_width >= calibrated.correction.speed_spread > steady.speed_spread
    network = lower(space, space.largest())
    promised, before = calibrated.estimate(space, network), table.with_info(calibration=steady).estimate(space, network)
    assert promised.latency_ms == pytest.approx(1.1 * before.latency_ms, rel=0.01)
    monkeypatch.undo()
    check = check_table(calibrated, space, device, nets=5, rng=np.random.default_rng(5), policy=quick)
    assert check.slowdown == pytest.approx(1 / 1.1, rel=0.01)
    assert abs(check.bias) < 0.05


def test_another_device_space_or_resolution_is_refused(table: LatencyTable, space: Space, device: Device) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TableError, match="the threads of the table is 1"):
        calibrate_table(table, space, Device(name="fake", runtime="fake", threads=4), rng=rng)
    with pytest.raises(TableError, match="not of ofa-proxyless-tiny"):
        check_table(table, get_space("ofa-proxyless-tiny"), device, rng=rng)
    with pytest.raises(TableError, match="at least 9"):
        calibrate_table(table, space, device, nets=3, rng=rng)
    with pytest.raises(TableError, match="at least 2"):
        check_table(table, space, device, nets=1, rng=rng)


def test_the_figures_of_a_check_are_what_they_say() -> None:
    import pandas as pd

    measured = np.array([10.0, 20.0, 30.0, 40.0])
    estimated = measured * [1.02, 0.96, 1.08, 1.20]
    networks = pd.DataFrame(
        {
            "arch": "{}",
            "latency_ms": estimated,
            "latency_low_ms": estimated * 0.95,
            "latency_high_ms": estimated * 1.05,
            "measured_ms": measured,
        }
    )
    found = compare(networks)
    assert found.mean_error == pytest.approx((0.02 + 0.04 + 0.08 + 0.20) / 4)
    assert found.bias == pytest.approx((0.02 - 0.04 + 0.08 + 0.20) / 4)
    assert (found.within_5_percent, found.within_10_percent, found.inside_interval) == (0.5, 0.75, 0.5)
    assert found.spearman == found.kendall == 1.0
