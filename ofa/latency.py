"""The latency of a network on a device, with its interval; used from the table to the model card."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

__all__ = ["LATENCIES", "Latency"]

LATENCIES = ("latency_ms", "latency_low_ms", "latency_high_ms")
"""Names of the three numbers of a latency: keys in JSON, columns of files, and objectives."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The latency of a network on a device, in milliseconds.

    Attributes:
        latency_ms: the expected latency.
        latency_low_ms, latency_high_ms: ends of the interval. If either is given as NaN (unknown), both become ``latency_ms``.
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
        """Build a latency from JSON values.

        Args:
            latency_ms: the expected latency in milliseconds.
            low_ms: lower end of the interval in milliseconds; None if unknown.
            high_ms: upper end of the interval in milliseconds; None if unknown.
        """
        low, high = (math.nan if end is None else end for end in (low_ms, high_ms))
        return cls(latency_ms=latency_ms, latency_low_ms=low, latency_high_ms=high)

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return self.latency_low_ms < self.latency_high_ms

    def holds(self, measured_ms: float) -> bool | None:
        """Whether a measured latency lies within the interval; None if the interval is unknown."""
        return self.latency_low_ms <= measured_ms <= self.latency_high_ms if self.has_interval else None

    def to_json(self) -> dict[str, float]:
        """The three numbers by name."""
        return asdict(self)
