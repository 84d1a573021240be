from __future__ import annotations

import numpy as np
import pytest

from ofa.arch import Arch
from search.front.info import VerifiedNetwork
from search.study import Effort, run_study
from search.verification.refresh import renewed
from tests.search.fakes import SMALL, FakeLatency, fake_problem

FRONT = run_study(fake_problem(), seed=0, effort=Effort(trials=32, evaluations=1000, islands=4))


class Slower(FakeLatency):
    """The same with a constant that nobody knew of."""

    def estimates_of_rows(self, rows_NC, /):  # type: ignore[no-untyped-def]
        return tuple(end_N + 0.05 for end_N in super().estimates_of_rows(rows_NC))


def test_a_front_takes_the_new_latencies_and_all_else_stays() -> None:
    front = renewed(FRONT, SMALL, Slower())
    for name in ("latency_ms@paper", "latency_high_ms@paper"):
        assert front.columns[name] == pytest.approx(FRONT.columns[name] + 0.05)
        assert front.info.least[name] == pytest.approx(FRONT.info.least[name] + 0.05, rel=0.01)
    rest = [name for name in FRONT.columns if "@" not in name]
    assert all(np.array_equal(front.columns[name], FRONT.columns[name], equal_nan=True) for name in rest)
    assert list(front.networks["arch"]) == list(FRONT.networks["arch"])
    dots = FRONT.dominated["latency_high_ms@paper"].to_numpy()
    inside = (dots >= FRONT.columns["latency_high_ms@paper"].min()) & (dots <= FRONT.columns["latency_high_ms@paper"].max())
    assert inside.any()
    assert front.dominated["latency_high_ms@paper"].to_numpy()[inside] == pytest.approx(dots[inside] + 0.05, rel=0.03)
    assert "latency_ms@paper" in FRONT.columns, "the old front is as it was"


def test_a_source_without_intervals_makes_them_empty() -> None:
    front = renewed(FRONT, SMALL, FakeLatency(half_width=None))
    assert np.array_equal(front.columns["latency_high_ms@paper"], front.columns["latency_ms@paper"])


def test_a_newer_measurement_replaces_the_older() -> None:
    def entry(arch: Arch, device: str, ms: float) -> VerifiedNetwork:
        return VerifiedNetwork(arch=arch, device=device, latency_ms=1.0, measured_ms=ms)

    one, two = SMALL.smallest(), SMALL.largest()
    once = FRONT.with_verified([entry(one, "pi", 1.0), entry(two, "pi", 2.0)])
    twice = once.with_verified([entry(one, "pi", 1.5), entry(one, "cpu", 3.0)])
    assert twice.info.verified == (entry(one, "pi", 1.5), entry(two, "pi", 2.0), entry(one, "cpu", 3.0))
    assert FRONT.info.verified == ()
