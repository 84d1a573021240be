"""Predicted against measured latencies: the networks of a verification, and a table's calibration networks."""

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
    """Predicted and measured latencies of N networks on one device.

    Attributes:
        device: name of the device.
        predicted_ms, low_ms, high_ms: predicted latency and its interval in ms; NaN ends without an interval; [N] each.
        measured_ms: measured latency in ms; [N].
        names: the networks in a few words.
    """

    device: str
    predicted_ms: Floats
    low_ms: Floats
    high_ms: Floats
    measured_ms: Floats
    names: tuple[str, ...]

    @property
    def errors(self) -> Floats:
        """Measured over predicted latency, minus 1; [N]."""
        return np.asarray(self.measured_ms / self.predicted_ms - 1.0)

    @property
    def mean_error(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.errors).mean())

    @property
    def inside(self) -> float:
        """Share of the networks inside their interval; NaN if none has one."""
        known = np.isfinite(self.low_ms) & np.isfinite(self.high_ms) & (self.low_ms < self.high_ms)
        within = (self.low_ms <= self.measured_ms) & (self.measured_ms <= self.high_ms)
        return float(within[known].mean()) if known.any() else float("nan")

    @property
    def kendall(self) -> float:
        """Kendall's rank correlation; NaN with fewer than three networks."""
        return float(kendalltau(self.predicted_ms, self.measured_ms).statistic) if len(self.names) > 2 else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True)
class Residuals:
    """Leave-one-out residuals of a table's correction.

    Attributes:
        device: name of the device.
        shares: residuals as shares of the prediction; [N].
        half_width: half width of the interval, as a share.
        coverage: nominal coverage of the interval.
    """

    device: str
    shares: Floats
    half_width: float
    coverage: float


def verified_of(info: FrontInfo) -> tuple[Comparison, ...]:
    """The measurements that ``ofa query --verify`` stored in a front, by device."""
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
    """A table's calibration networks: measured latencies against its present estimates; None without such networks."""
    if table.correction is None or not table.info.networks:
        return None
    spaces = [table.info.space_of(network.arch.space, classes_of(table)) for network in table.info.networks]
    measured = [
        (network.arch, table.estimate(space, lower(space, network.arch)), network.measured_ms)
        for space, network in zip(spaces, table.info.networks, strict=True)
    ]
    return _comparison(table.device_name, measured)


def _comparison(device: str, measured: Sequence[tuple[Arch, Latency, float]]) -> Comparison:
    """Compare the predicted and measured latencies of networks."""
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
    """Number of classes of the table's networks, from its classifier blocks; None without any."""
    import json

    blocks = table.rows.loc[table.rows["kind"] == "classifier", "block"]
    return int(json.loads(blocks.iloc[0])["out_channels"]) if len(blocks) else None
