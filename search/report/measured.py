"""Predicted against measured: the networks of a verification, and those that a table was calibrated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from latency_tables import LatencyTable
from latency_tables.info import TableInfo
from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.families import lower
from ofa.latency import Latency
from search.front.info import FrontInfo, VerifiedNetwork

__all__ = ["Comparison", "Residuals", "calibration_of", "classes_of", "residuals_of", "verified_of"]


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


def verified_of(info: FrontInfo) -> tuple[Comparison, ...]:
    """What ``ofa query --verify`` left in a front, by device."""
    by_device: dict[str, list[VerifiedNetwork]] = {}
    for network in info.verified:
        by_device.setdefault(network.device, []).append(network)
    return tuple(_comparison(device, [(each.arch, each.promised, each.measured_ms) for each in own]) for device, own in by_device.items())


def residuals_of(info: TableInfo) -> Residuals | None:
    """The residuals of a table's calibration; None if it has none."""
    found = info.calibration
    if found is None or not found.residuals:
        return None
    return Residuals(device=info.device_name, shares=np.array(found.residuals), half_width=found.half_width, coverage=found.coverage)


def calibration_of(table: LatencyTable) -> Comparison | None:
    """The networks that a table was calibrated with against what it says of them now; None if it has no such networks."""
    if table.correction is None or not table.info.networks:
        return None
    spaces = [table.info.space_of(network.arch.space, classes_of(table)) for network in table.info.networks]
    measured = [
        (network.arch, table.estimate(space, lower(space, network.arch)), network.measured_ms)
        for space, network in zip(spaces, table.info.networks, strict=True)
    ]
    return _comparison(table.device_name, measured)


def _comparison(device: str, measured: Sequence[tuple[Arch, Latency, float]]) -> Comparison:
    """Networks with what was said of each and what it took."""
    latencies = [latency for _, latency, _ in measured]
    return Comparison(
        device=device,
        predicted_ms=np.array([each.latency_ms for each in latencies]),
        low_ms=np.array([each.latency_low_ms if each.has_interval else np.nan for each in latencies]),
        high_ms=np.array([each.latency_high_ms if each.has_interval else np.nan for each in latencies]),
        measured_ms=np.array([ms for _, _, ms in measured]),
        names=tuple(arch.in_words for arch, _, _ in measured),
    )


def classes_of(table: LatencyTable) -> int | None:
    """Classes of the table's networks, which its classifiers tell; None if it holds none."""
    import json

    blocks = table.rows.loc[table.rows["kind"] == "classifier", "block"]
    return int(json.loads(blocks.iloc[0])["out_channels"]) if len(blocks) else None
