from __future__ import annotations

import numpy as np
import pytest

from devices import Device, Fake, TimingPolicy
from latency_tables import LatencyTable, build_table
from ofa.families import get_space
from ofa.space import Space

QUICK = TimingPolicy(min_rounds=5, max_rounds=5)


@pytest.fixture(scope="session")
def quick() -> TimingPolicy:
    """A few rounds: the fake needs no more."""
    return QUICK


@pytest.fixture(scope="session")
def device() -> Device:
    return Device(name="fake", runtime="fake", address=Fake())


@pytest.fixture(scope="session")
def space() -> Space:
    return get_space("ofa-mbv3-tiny")


@pytest.fixture(scope="session")
def table(space: Space, device: Device) -> LatencyTable:
    """All blocks of the tiny space, not calibrated."""
    return build_table(space, device, rng=np.random.default_rng(0), policy=QUICK)
