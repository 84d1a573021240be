from __future__ import annotations

import numpy as np
import pytest

from devices import Device, TimingPolicy
from latency_tables import Estimator, LatencyTable, calibrate_table
from latency_tables.info import Estimated
from latency_tables.update import learn_from
from ofa.space import Space


@pytest.fixture(scope="module")
def calibrated(table: LatencyTable, space: Space, device: Device, quick: TimingPolicy) -> LatencyTable:
    return calibrate_table(table, space, device, nets=12, rng=np.random.default_rng(1), policy=quick)


def test_networks_come_in_once_and_the_correction_follows(calibrated: LatencyTable, space: Space) -> None:
    estimator = Estimator(space, calibrated)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(30)]
    found = {arch: 1.1 * estimator(arch).latency_ms for arch in archs}
    learned = learn_from(calibrated, space, found, slowdown=1.0, processes=6)
    assert learned is not None
    assert learned.correction is not None
    assert len(learned.info.networks) == learned.correction.nets == 42
    again = learn_from(learned, space, {archs[0]: 2.0}, slowdown=1.0, processes=6)
    assert again is not None
    assert len(again.info.networks) == 42
    assert [network.measured_ms for network in again.info.networks if network.arch == archs[0]] == [2.0]
    # Most networks say 10 % more, and the fit is robust to those that do not.
    assert Estimator(space, learned)(archs[0]).latency_ms == pytest.approx(found[archs[0]], rel=0.02)
    assert len(calibrated.info.networks) == 12, "learning makes a copy"


@pytest.mark.parametrize(("slowdown", "lasting"), [(1.02, 1.02**0.5), (0.98, 0.98**0.5), (1.2, 1.2), (0.8, 0.8)])
def test_a_speed_beyond_what_passes_is_the_new_one(calibrated: LatencyTable, space: Space, slowdown: float, lasting: float) -> None:
    learned = learn_from(calibrated, space, {}, slowdown=slowdown, processes=6)
    assert learned is not None
    assert learned.correction is not None
    assert calibrated.correction is not None
    assert learned.correction.speed == pytest.approx(lasting * calibrated.correction.speed)
    assert learned.correction.speed_spread == calibrated.correction.speed_spread
    assert learned.info.processes == (12 if abs(slowdown - 1) < 0.1 else 6)
    arch = space.largest()
    assert Estimator(space, learned)(arch).latency_ms == pytest.approx(lasting * Estimator(space, calibrated)(arch).latency_ms)


def test_tables_that_have_nothing_to_correct_are_left_alone(table: LatencyTable, calibrated: LatencyTable, space: Space) -> None:
    found = {space.largest(): 1.0}
    assert learn_from(table, space, found, slowdown=1.0, processes=6) is None
    assert learn_from(calibrated.with_info(estimated=Estimated(by="transfer", nets=10)), space, found, slowdown=1.0, processes=6) is None
