"""From the sum over blocks to the whole network: an affine correction with an interval, as stored in a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Correction", "Estimate"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a network should take, in milliseconds. ``low_ms`` and ``high_ms`` are NaN where a table is not calibrated."""

    latency_ms: float
    low_ms: float = math.nan
    high_ms: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Correction:
    """``latency = intercept_ms + slope * sum of blocks``, and how far whole networks were from it.

    Args:
        intercept_ms: what a network costs beyond its blocks.
        slope: how blocks in a network compare to blocks alone.
        half_width: half of the interval, as a share of the latency.
        coverage: share of networks not seen that the interval holds.
        nets: whole networks that it was learned from.
        residuals: their relative residuals when left out, ascending by size: what ``half_width`` was taken from.
    """

    intercept_ms: float
    slope: float
    half_width: float
    coverage: float
    nets: int
    residuals: tuple[float, ...] = ()

    def apply(self, sum_ms: float) -> Estimate:
        """The estimate for a network whose blocks sum to ``sum_ms``."""
        latency_ms = self.intercept_ms + self.slope * sum_ms
        return Estimate(latency_ms=latency_ms, low_ms=latency_ms * (1 - self.half_width), high_ms=latency_ms * (1 + self.half_width))

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return {**dataclasses.asdict(self), "residuals": list(self.residuals)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Correction:
        """The correction that ``to_json`` wrote."""
        return cls(**{**fields, "residuals": tuple(fields["residuals"])})
