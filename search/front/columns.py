"""Display of a front's columns: names, units and scales."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ofa.arrays import Floats
from ofa.costs import COSTS
from search.evolution.pareto import non_dominated
from search.front.info import FrontInfo

__all__ = ["Quantity", "best_along", "costs_of_front", "expected_column", "figures", "floats_of"]

Indices = NDArray[np.int64]

_SCALES = {
    "count": ((1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, "")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}
_ENDS = {"latency_low_ms": "latency_ms", "latency_high_ms": "latency_ms"}
_ON_DEVICE = {"latency_ms": ("latency", "ms"), "energy_mj": ("energy", "mJ")}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A cost of networks, with its display name and unit.

    Attributes:
        key: its column, such as ``latency_ms@pi``.
        words: its display name, such as ``latency on pi``.
        unit: its display unit, such as ``ms``; empty for a plain number.
        scale: the display unit in units of the column.
        low, high: columns of its interval's ends; None where the front has none.
        device: its device; None for a cost that does not depend on a device.
    """

    key: str
    words: str
    unit: str
    scale: float = 1.0
    low: str | None = None
    high: str | None = None
    device: str | None = None

    @property
    def label(self) -> str:
        """Name and unit, as on an axis."""
        return f"{self.words}, {self.unit}" if self.unit else self.words

    def text(self, value: float) -> str:
        """A value with its unit, in three significant digits."""
        return f"{figures(value / self.scale)} {self.unit}".rstrip()


def figures(value: float, digits: int = 3) -> str:
    """A number in about so many significant digits, never with an exponent; ``unknown`` for NaN and infinities."""
    if not math.isfinite(value):
        return "unknown"
    decimals = digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:,.{min(max(decimals, 0), 9)}f}"


def floats_of(frame: pd.DataFrame, column: str) -> Floats:
    """A column as numbers, NaN where it is absent."""
    if column not in frame.columns:
        return np.full(len(frame), np.nan)
    return frame[column].to_numpy(dtype=np.float64, na_value=np.nan)


def expected_column(column: str) -> str:
    """The column of the expected value: for the ends of an interval the column that the interval belongs to, else the column itself."""
    name, at, device = column.partition("@")
    return _ENDS.get(name, name) + at + device


def costs_of_front(networks: pd.DataFrame, info: FrontInfo) -> tuple[Quantity, ...]:
    """All costs in a front: first the objectives of the search in their order, then the others.

    Args:
        networks: the front's networks; columns without any number are left out.
        info: the front's info, whose ``objectives`` and ``devices`` set the order.
    """
    on_devices = [f"{name}@{device}" for name in _ON_DEVICE for device in info.devices]
    wanted = [*map(expected_column, info.objectives), *on_devices, *COSTS.names()]
    known = [column for column in dict.fromkeys(wanted) if np.isfinite(floats_of(networks, column)).any()]
    return tuple(_quantity(networks, column) for column in known)


def best_along(cost: Floats, accuracy: Floats) -> Indices:
    """Indices of the rows that are more accurate than every cheaper row (a staircase), by ascending cost."""
    known = np.flatnonzero(np.isfinite(cost) & np.isfinite(accuracy))
    kept: Indices = known[non_dominated(np.stack([cost[known], -accuracy[known]], axis=1))]
    return kept[np.argsort(cost[kept])]


def _quantity(networks: pd.DataFrame, column: str) -> Quantity:
    name, _, device = column.partition("@")
    if name in _ON_DEVICE:
        words, unit = _ON_DEVICE[name]
        ends = [f"{end}@{device}" for end in _ENDS if name == "latency_ms"]
        known = [end for end in ends if np.isfinite(floats_of(networks, end)).any()]
        low, high = known if len(known) == 2 else (None, None)
        return Quantity(key=column, words=f"{words} on {device}", unit=unit, low=low, high=high, device=device)
    words, kind = (COSTS.get(name).words, COSTS.get(name).unit) if name in COSTS else (name.replace("_", " "), "count")
    scale, unit = _scale(kind, floats_of(networks, column))
    return Quantity(key=column, words=words, unit=unit, scale=scale)


def _scale(kind: str, values: Iterable[float]) -> tuple[float, str]:
    """The largest unit in which the largest value is at least 1."""
    most = float(np.nanmax(np.fromiter(values, dtype=np.float64)))
    return next(((scale, unit) for scale, unit in _SCALES[kind] if most >= scale), _SCALES[kind][-1])
