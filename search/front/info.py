"""Metadata of a front: the search's problem, the origin of accuracies and latencies, and later verifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devices import Conditions
from latency_tables.info import TableInfo
from ofa.arch import Arch
from ofa.latency import Latency
from ofa.parquet import now

__all__ = ["FrontInfo", "VerifiedNetwork"]


@dataclass(frozen=True, kw_only=True)
class VerifiedNetwork:
    """A network of a front that was timed on a device.

    Attributes:
        arch: the network.
        device: name of the device.
        latency_ms, latency_low_ms, latency_high_ms: promised latency with its interval; None ends without an interval.
        measured_ms: measured latency.
        typical_ms: measured latency, converted to the machine's typical speed; None if not known.
        conditions: conditions of the measurement; None if not known.
    """

    arch: Arch
    device: str
    latency_ms: float
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    measured_ms: float
    typical_ms: float | None = None
    conditions: Conditions | None = None

    @property
    def promised(self) -> Latency:
        """The promised latency."""
        return Latency.of(self.latency_ms, self.latency_low_ms, self.latency_high_ms)


@dataclass(frozen=True, kw_only=True)
class FrontInfo:
    """Metadata of a front.

    Attributes:
        space: name of the space.
        num_classes: number of classes of its networks; None in fronts of earlier versions.
        space_json: the whole space (``Space.to_json``); None in fronts of earlier versions.
        resolutions: searched resolutions as JSON values (``224``, ``"224x160"``); empty in fronts of earlier versions.
        devices: names of the devices of its latencies, in order.
        precisions: if its networks come in several precisions: by device, the name of the measuring device for each precision.
        objectives: columns of the costs that were traded against accuracy.
        least: smallest achievable value by column.
        budget: limits of the search (``Budget.to_json``).
        expected_latency: whether limits were compared with the expected latency instead of the ends of its interval.
        accuracy: provenance of the accuracies: ``source`` (``predicted``, ``measured``) and further keys of that source.
        latency: origin of the latencies by device (with several precisions, by measuring device).
        study: facts about the search, such as ``seed``, ``evaluated`` and ``seconds``.
        verified: networks that were timed on a device.
        command: the command that made it.
        date: date of the search.
    """

    space: str
    num_classes: int | None = None
    space_json: Mapping[str, Any] | None = None
    resolutions: tuple[int | str, ...] = ()
    devices: tuple[str, ...]
    precisions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    objectives: tuple[str, ...]
    least: Mapping[str, float] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    expected_latency: bool = False
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    latency: Mapping[str, TableInfo] = field(default_factory=dict)
    study: Mapping[str, Any] = field(default_factory=dict)
    verified: tuple[VerifiedNetwork, ...] = ()
    command: str | None = None
    date: str = field(default_factory=now)

    @property
    def accuracy_source(self) -> str | None:
        """Source of the accuracies: ``predicted`` or ``measured``; None if not recorded."""
        return self.accuracy.get("source")

    @property
    def metric(self) -> str:
        """Name of the score that the accuracies are; ``accuracy`` if not recorded."""
        return str(self.accuracy.get("metric", "accuracy"))

    @property
    def accuracy_words(self) -> str:
        """Name and source of the accuracies, such as ``accuracy, predicted``."""
        return f"{self.metric}, {self.accuracy_source}" if self.accuracy_source else self.metric

    def measured_by(self, device: str, precision: str | None) -> str:
        """Name of the device that measures a device in a precision; the device itself if precision is no gene."""
        return device if precision is None else self.precisions.get(device, {}).get(precision, device)

    def measures(self, device: str) -> tuple[str, ...]:
        """Names of the measuring devices of a device, one for each precision."""
        return tuple(self.precisions.get(device, {device: device}).values())

    @property
    def evaluated(self) -> int | None:
        """Number of evaluated networks; None if not recorded."""
        return self.study.get("evaluated")
