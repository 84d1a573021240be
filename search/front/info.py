"""What is known of a front: what was searched for, where accuracies and latencies come from, and what was verified since."""

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
        latency_ms, latency_low_ms, latency_high_ms: what was promised; None ends where no interval was known.
        measured_ms: what it took.
        typical_ms: what it takes at the machine's typical speed; None is not known.
        conditions: what was measured under; None is not known.
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
        """What was promised."""
        return Latency.of(self.latency_ms, self.latency_low_ms, self.latency_high_ms)


@dataclass(frozen=True, kw_only=True)
class FrontInfo:
    """Where a front comes from.

    Attributes:
        space: name of the space.
        num_classes: of its networks; None in fronts of earlier versions, as the next two.
        space_json: all of the space (``Space.to_json``).
        resolutions: that were searched, as JSON has them (``224``, ``"224x160"``).
        devices: names of the devices that its latencies are of, in order.
        precisions: where its networks come in several precisions, by device the name of what measures it in each.
        objectives: the costs that were traded against accuracy, by column.
        least: the least achievable costs by column.
        budget: the limits of the search (``Budget.to_json``).
        expected_latency: whether the expected latency was compared with them.
        accuracy: where accuracies come from: ``source`` (``predicted``, ``measured``) and what that source tells of itself.
        latency: where latencies come from, by device; by what measures it where there are several precisions.
        study: what the search says of itself, such as ``seed``, ``evaluated`` and ``seconds``.
        verified: networks that were timed on a device.
        command: that made it.
        date: when it was searched.
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
        """How accuracies are known: ``predicted`` or ``measured``; None if that was not noted."""
        return self.accuracy.get("source")

    @property
    def metric(self) -> str:
        """What accuracies are called, which are the score of a task; ``accuracy`` if that was not noted."""
        return str(self.accuracy.get("metric", "accuracy"))

    @property
    def accuracy_words(self) -> str:
        """What accuracies are called and how they are known, such as ``accuracy, predicted``."""
        return f"{self.metric}, {self.accuracy_source}" if self.accuracy_source else self.metric

    def measured_by(self, device: str, precision: str | None) -> str:
        """The name of what measures a device in a precision: the device's own where precision is no gene."""
        return device if precision is None else self.precisions.get(device, {}).get(precision, device)

    def measures(self, device: str) -> tuple[str, ...]:
        """The names of all that measures a device: one for each precision."""
        return tuple(self.precisions.get(device, {device: device}).values())

    @property
    def evaluated(self) -> int | None:
        """How many networks were evaluated; None if the search did not say."""
        return self.study.get("evaluated")
