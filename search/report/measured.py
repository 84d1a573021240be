"""Predicted against measured: the networks of a verification, and those that a table was calibrated with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from latency_tables import LatencyTable
from latency_tables.spaces import space_of
from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.families import lower
from ofa.space import Space

__all__ = ["Comparison", "Residuals", "calibration_of", "classes_of", "residuals_of", "verified_of"]

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Networks that were predicted and measured on one device; N of each.

    Attributes:
        device: its name.
        predicted_ms, low_ms, high_ms: what was said; NaN ends where no interval is known.
        measured_ms: what was measured.
        names: of each network, in a few words.
    """

    device: str
    predicted_ms: Floats
    low_ms: Floats
    high_ms: Floats
    measured_ms: Floats
    names: tuple[str, ...]

    @property
    def errors(self) -> Floats:
        """How far each was above its prediction, as a share of it; [N]."""
        return np.asarray(self.measured_ms / self.predicted_ms - 1.0)

    @property
    def mean_error(self) -> float:
        """Mean of the sizes of the errors."""
        return float(np.abs(self.errors).mean())

    @property
    def inside(self) -> float:
        """Share of the networks within their interval; NaN if none has one."""
        known = np.isfinite(self.low_ms) & np.isfinite(self.high_ms) & (self.low_ms < self.high_ms)
        within = (self.low_ms <= self.measured_ms) & (self.measured_ms <= self.high_ms)
        return float(within[known].mean()) if known.any() else float("nan")

    @property
    def kendall(self) -> float:
        """Rank correlation; NaN of fewer than three networks."""
        return float(kendalltau(self.predicted_ms, self.measured_ms).statistic) if len(self.names) > 2 else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True)
class Residuals:
    """How far whole networks were from the correction of a table when they were left out of it.

    Attributes:
        device: its name.
        shares: residuals as shares of the prediction; [N].
        half_width: of the interval, as a share.
        coverage: share of new networks that the interval is to hold.
    """

    device: str
    shares: Floats
    half_width: float
    coverage: float


def verified_of(metadata: Json) -> tuple[Comparison, ...]:
    """What ``ofa query --verify`` left in the metadata of a front, by device."""
    by_device: dict[str, list[Json]] = {}
    for entry in metadata.get("verified") or ():
        by_device.setdefault(str(entry["device"]), []).append(entry)
    return tuple(_verified(device, entries) for device, entries in by_device.items())


def residuals_of(metadata: Json, device: str) -> Residuals | None:
    """The residuals of a table's calibration; None if it has none.

    Args:
        metadata: of the table.
        device: its name.
    """
    calibration = metadata.get("calibration")
    if not isinstance(calibration, Mapping) or not calibration.get("residuals"):
        return None
    shares = np.array(calibration["residuals"], dtype=np.float64)
    return Residuals(device=device, shares=shares, half_width=float(calibration["half_width"]), coverage=float(calibration["coverage"]))


def calibration_of(table: LatencyTable) -> Comparison | None:
    """The networks that a table was calibrated with against what it says of them now; None if it has no such networks."""
    entries = table.metadata.get("networks") or ()
    if table.correction is None or not entries:
        return None
    archs = [Arch.from_json(entry["arch"]) for entry in entries]
    estimates = [table.estimate(_space(table, arch), lower(_space(table, arch), arch)) for arch in archs]
    return Comparison(
        device=table.device_name,
        predicted_ms=np.array([estimate.latency_ms for estimate in estimates]),
        low_ms=np.array([estimate.latency_low_ms for estimate in estimates]),
        high_ms=np.array([estimate.latency_high_ms for estimate in estimates]),
        measured_ms=np.array([entry["measured_ms"] for entry in entries], dtype=np.float64),
        names=tuple(arch.in_words for arch in archs),
    )


def _verified(device: str, entries: Sequence[Json]) -> Comparison:
    def column(key: str) -> Floats:
        return np.array([np.nan if entry.get(key) is None else entry[key] for entry in entries], dtype=np.float64)

    return Comparison(
        device=device,
        predicted_ms=column("latency_ms"),
        low_ms=column("latency_low_ms"),
        high_ms=column("latency_high_ms"),
        measured_ms=column("measured_ms"),
        names=tuple(Arch.from_json(entry["arch"]).in_words for entry in entries),
    )


def _space(table: LatencyTable, arch: Arch) -> Space:
    return space_of(table.metadata, arch.space, classes_of(table))


def classes_of(table: LatencyTable) -> int | None:
    """Classes of the table's networks, which its classifiers tell; None if it holds none."""
    import json

    blocks = table.rows.loc[table.rows["kind"] == "classifier", "block"]
    return int(json.loads(blocks.iloc[0])["out_channels"]) if len(blocks) else None
