"""The numbers of a network by name, and the limits that may be set on them.

Shapes: N networks; every column is a float64 array [N].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ofa.errors import SearchError, nearest
from search.pareto import Bools, Floats

__all__ = ["COLUMNS", "COSTS", "Budget", "Columns"]

COSTS = ("latency_ms", "latency_low_ms", "latency_high_ms", "macs", "params", "weight_bytes", "peak_activation_bytes")
"""Everything about a network that is better small."""

COLUMNS = ("accuracy", *COSTS)
"""The numbers of an evaluated network, in the order of rows, tables and files."""

Columns = Mapping[str, Floats]
"""Arrays of equal length by the names of ``COLUMNS``."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that a network may cost; None sets no limit.

    Attributes:
        latency_ms: limit of the latency of one call on the device.
        macs: limit of the multiply-accumulates of one image.
        params: limit of the number of parameters.
        weight_bytes: limit of the bytes of the weights as they are shipped.
        peak_activation_bytes: limit of the bytes of activations that are alive at once.
        expected_latency: compare ``latency_ms`` with the expected latency. By default it is compared with the upper end of the
            interval, so that a network that meets the budget on paper meets it on the device.

    Raises:
        SearchError: a limit is not a positive number.
    """

    latency_ms: float | None = None
    macs: float | None = None
    params: float | None = None
    weight_bytes: float | None = None
    peak_activation_bytes: float | None = None
    expected_latency: bool = False

    def __post_init__(self) -> None:
        for key, limit in self.limits.items():
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or not math.isfinite(limit) or limit <= 0:
                raise SearchError(f"a budget must be a positive number, but {key} is {limit!r}; give the most that the network may cost")

    @classmethod
    def from_mapping(cls, limits: Mapping[str, float | None], *, expected_latency: bool = False) -> Budget:
        """The budget of these limits by their names.

        Raises:
            SearchError: a key that is none of the limits, or a value that is not a positive number.
        """
        for key in limits:
            if key not in _LIMITS:
                raise SearchError(f"a budget must limit a known cost, but got '{key}'; {nearest(key, _LIMITS)}")
        return cls(**limits, expected_latency=expected_latency)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by their key."""
        return {key: limit for key, limit in asdict(self).items() if key in _LIMITS and limit is not None}

    def column(self, key: str) -> str:
        """The name of the column that the limit ``key`` is compared with."""
        return "latency_high_ms" if key == "latency_ms" and not self.expected_latency else key

    def violations(self, columns: Columns) -> dict[str, Floats]:
        """By limit, how far each network is above it as a share of the limit; at most 0 where it is kept."""
        return {key: columns[self.column(key)] / limit - 1.0 for key, limit in self.limits.items()}

    def allows(self, columns: Columns) -> Bools:
        """Whether each network keeps every limit."""
        allowed = np.ones(len(columns["accuracy"]), dtype=np.bool_)
        for excess in self.violations(columns).values():
            allowed &= excess <= 0
        return allowed


_LIMITS = ("latency_ms", "macs", "params", "weight_bytes", "peak_activation_bytes")
