"""One value for a latency with its interval."""

from __future__ import annotations

import math

from ofa.exporting.card import Card
from ofa.latency import Latency


def test_an_interval_holds_its_ends_and_nothing_beyond() -> None:
    latency = Latency(latency_ms=2.0, latency_low_ms=1.5, latency_high_ms=2.5)
    assert [latency.holds(ms) for ms in (1.4, 1.5, 2.5, 2.6)] == [False, True, True, False]
    assert latency.to_json() == {"latency_ms": 2.0, "latency_low_ms": 1.5, "latency_high_ms": 2.5}


def test_without_both_ends_no_interval_is_known() -> None:
    for latency in (
        Latency(latency_ms=2.0),
        Latency(latency_ms=2.0, latency_low_ms=1.5),
        Latency(latency_ms=2.0, latency_high_ms=math.nan),
    ):
        assert (latency.latency_low_ms, latency.latency_high_ms) == (2.0, 2.0)
        assert not latency.has_interval
        assert latency.holds(2.0) is None


def test_a_card_promises_the_latency_that_its_numbers_say() -> None:
    assert Card().latency is None
    assert Card(latency_ms=2.0).latency == Latency(latency_ms=2.0)
    numbers = {"latency_ms": 2.0, "latency_low_ms": 1.5, "latency_high_ms": 2.5}
    assert Card(**numbers).latency == Latency(**numbers)
