"""The latency of a network on a device, with the interval that holds it: one value from the table to the card."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

__all__ = ["LATENCIES", "Latency"]

LATENCIES = ("latency_ms", "latency_low_ms", "latency_high_ms")
"""The names of its numbers, in JSON, columns of files, and objectives."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What a network takes on a device, in milliseconds.

    Attributes:
        latency_ms: the expected latency.
        latency_low_ms, latency_high_ms: the interval that holds it; both equal to ``latency_ms`` where none is known, which NaN says.
    """

    latency_ms: float
    latency_low_ms: float = math.nan
    latency_high_ms: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.latency_low_ms) or math.isnan(self.latency_high_ms):
            for name in LATENCIES[1:]:
                object.__setattr__(self, name, self.latency_ms)

    @classmethod
    def of(cls, latency_ms: float, low_ms: float | None, high_ms: float | None) -> Latency:
        """The latency of numbers as JSON has them: None for an end that is not known."""
        low, high = (math.nan if end is None else end for end in (low_ms, high_ms))
        return cls(latency_ms=latency_ms, latency_low_ms=low, latency_high_ms=high)

    @property
    def has_interval(self) -> bool:
        """Whether an interval is known."""
        return self.latency_low_ms < self.latency_high_ms

    def holds(self, measured_ms: float) -> bool | None:
        """Whether a measured latency is within the interval; None if none is known."""
        return self.latency_low_ms <= measured_ms <= self.latency_high_ms if self.has_interval else None

    def to_json(self) -> dict[str, float]:
        """The three numbers by name."""
        return asdict(self)
