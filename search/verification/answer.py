"""The answer of a verified query: measured latencies of the best networks on the device, and the networks that were dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from devices import Conditions
from latency_tables import LatencyTable
from search.front.candidate import Candidate
from search.front.front import Front
from search.front.info import VerifiedNetwork

__all__ = ["TimedCandidate", "VerifiedAnswer"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TimedCandidate:
    """A network of a front that was timed on a device.

    Attributes:
        candidate: the network with the front's predictions for it.
        device: name of the device.
        budget_ms: upper limit of its latency in ms; None without a limit.
        times_ms: measured latencies in ms: the median of each process.
        typical_ms: latency in ms at the machine's typical speed. Calibration networks of the table that were timed in the same round give
            the machine's speed; without any it equals the measured latency.
        likely_ms: posterior estimate of the latency in ms from measurement and table, now or at the typical speed, whichever is slower.
        reason: why it was dropped, in a few words; empty if it was kept.
    """

    candidate: Candidate
    device: str
    budget_ms: float | None
    times_ms: tuple[float, ...]
    typical_ms: float
    likely_ms: float
    reason: str = ""

    @property
    def measured_ms(self) -> float:
        """The median over the processes."""
        return float(np.median(self.times_ms))

    @property
    def budget_used(self) -> float | None:
        """Latency as a share of the budget, now or at the typical speed, whichever is slower; None without a budget."""
        return None if self.budget_ms is None else max(self.measured_ms, self.typical_ms) / self.budget_ms

    @property
    def within_interval(self) -> bool | None:
        """Whether the measured median is inside the promised interval; None if no interval was promised."""
        return self.candidate.latencies[self.device].holds(self.measured_ms)

    def to_json(self) -> dict[str, Any]:
        """The candidate and its measurements, as JSON values."""
        return {
            **self.candidate.to_json(),
            "measured_ms": self.measured_ms,
            "measured_low_ms": min(self.times_ms),
            "measured_high_ms": max(self.times_ms),
            "processes": len(self.times_ms),
            "typical_ms": self.typical_ms,
            "likely_ms": self.likely_ms,
            "budget_used": self.budget_used,
            "within_interval": self.within_interval,
            **({"reason": self.reason} if self.reason else {}),
        }

    def noted(self, conditions: Conditions) -> VerifiedNetwork:
        """The record that a front keeps: promise, measurement, and the conditions of the measurement."""
        return VerifiedNetwork(
            arch=self.candidate.arch,
            device=self.device,
            **self.candidate.latencies[self.device].to_json(),
            measured_ms=self.measured_ms,
            typical_ms=self.typical_ms,
            conditions=conditions,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class VerifiedAnswer:
    """Result of ``query_verified``.

    Attributes:
        device: name of the device.
        budget_ms: upper limit of the latency on the device in ms; None without a limit.
        margin: safety margin between budget and likely latency, as a share of the latency.
        kept: the best networks that keep the budget, best first.
        dropped: timed networks that break the budget, best first.
        slowdown: current over typical latency of the machine; None if no calibration network was timed.
        rounds: number of measurement rounds.
        conditions: conditions of the measurements.
        table: copy of the table, updated with the measurements; None if the table could not be updated.
        front: the front with the measurements (``info.verified``), and with the estimates of ``table`` if there is one.
    """

    device: str
    budget_ms: float | None
    margin: float
    kept: tuple[TimedCandidate, ...]
    dropped: tuple[TimedCandidate, ...]
    slowdown: float | None
    rounds: int
    conditions: Conditions
    table: LatencyTable | None
    front: Front

    def to_json(self) -> dict[str, Any]:
        """All but the table and the front, as JSON values."""
        return {
            "device": self.device,
            "budget_ms": self.budget_ms,
            "margin": self.margin,
            "slowdown": self.slowdown,
            "rounds": self.rounds,
            "conditions": {self.device: self.conditions.to_json()},
            "results": [found.to_json() for found in self.kept],
            "dropped": [found.to_json() for found in self.dropped],
        }
