"""The answer of a query that was verified on a device: what the best networks took there, and which were dropped."""

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
        candidate: the network with what was promised of it before.
        device: the device.
        budget_ms: the most that it may take; None if nothing was asked.
        times_ms: what it took by the clock, the median of each process.
        typical_ms: what it takes at the machine's typical speed, going by networks of the table's calibration that were timed beside it;
            as measured where there are none.
        likely_ms: what it probably takes now or at the typical speed, whichever is slower, the table's estimate being considered.
        reason: why it was dropped, a few words; empty if it was not.
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
        """The share of the budget that it takes, now or at the typical speed, whichever is slower; None without a budget."""
        return None if self.budget_ms is None else max(self.measured_ms, self.typical_ms) / self.budget_ms

    @property
    def within_interval(self) -> bool | None:
        """Whether the measured median is in the interval that was promised; None if there was none."""
        return self.candidate.latencies[self.device].holds(self.measured_ms)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON values: the candidate's with what was measured."""
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
        """What a front keeps of it: the promise, the measurement, and what that was made under."""
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
    """What ``query_verified`` found.

    Attributes:
        device: the device.
        budget_ms: the most that a network may take there; None if nothing was asked.
        margin: between the budget and what networks probably take, as a share of the latter.
        kept: the best networks that keep the budget, best first.
        dropped: networks that were timed and do not keep it, best first.
        slowdown: how much slower the machine was than typical; None where nothing tells.
        rounds: of measurements.
        conditions: what was measured under.
        table: the table with what was learned; None where nothing could be.
        front: the front with what was measured (``info.verified``), and estimates of ``table`` if there is one.
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
        """The networks and how they were found, as JSON values; not the table and the front."""
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
