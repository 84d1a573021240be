"""Latencies and accuracies of networks in several precisions, each from what knows them in one.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from latency_tables.info import TableInfo
from ofa.arrays import Floats, Rows
from ofa.space import Space
from search.accuracy import AccuracySource, Remembering
from search.latency import LatencySource
from search.precisions.space import PrecisionSpace

__all__ = ["AccuracyByPrecision", "LatencyByPrecision", "LossSource", "devices_by_precision", "infos_of"]


class LossSource(Protocol):
    """What tells how much accuracy networks lose in a precision; ``search.predictor.quantization.QuantizationLoss`` is one."""

    @property
    def precision(self) -> str:
        """The precision."""

    @property
    def space(self) -> Space:
        """The space whose encoded archs it takes."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where its numbers come from, as JSON values."""

    def losses_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """What is lost (0..1, below 0 where the precision gains), and how far the 90 % interval reaches to either side; [N] each."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LatencyByPrecision:
    """The latencies of one device that has a table of each precision. It is a ``LatencySource``.

    Attributes:
        space: the networks and their precisions.
        sources: by precision; each of the networks of ``space.of``, or of a space of which these are a part.
    """

    space: PrecisionSpace
    sources: Mapping[str, LatencySource]

    @property
    def _first(self) -> LatencySource:
        return self.sources.get("fp32", next(iter(self.sources.values())))

    @property
    def device_name(self) -> str:
        """The device as float32 knows it, or else the first one."""
        return self._first.device_name

    @property
    def info(self) -> TableInfo:
        """Where the numbers of that device come from; ``infos_of`` has all of them."""
        return self._first.info

    @property
    def has_energy(self) -> bool:
        """Whether energies are known in every precision."""
        return all(source.has_energy for source in self.sources.values())

    @property
    def is_measured(self) -> bool:
        """Whether each network is measured."""
        return any(source.is_measured for source in self.sources.values())

    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats, Floats]:
        """Latencies in ms with the ends of their intervals, of each network in its precision; [N] each."""
        latency_N, low_N, high_N = self._spread(rows_NC, lambda source, inner_NC: np.stack(source.estimates_of_rows(inner_NC)), (3,))
        return latency_N, low_N, high_N

    def energies_of_rows(self, rows_NC: Rows, /) -> Floats:
        """Millijoules of one call of each network in its precision; [N]."""
        return self._spread(rows_NC, lambda source, inner_NC: source.energies_of_rows(inner_NC), ())

    def _spread(self, rows_NC: Rows, ask: Callable[[LatencySource, Rows], Floats], shape: tuple[int, ...]) -> Floats:
        """What each precision's source answers of its networks, put together; [*shape, N]."""
        found, inner_NC = np.empty((*shape, len(rows_NC))), self.space.without(rows_NC)
        for precision, index in self.space.in_precision(rows_NC).items():
            source = self.sources[precision]
            found[..., index] = ask(source, self.space.of.rows_in(source.space, inner_NC[index]))
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class AccuracyByPrecision:
    """Accuracies of networks, less what each loses in its precision. It is an ``AccuracySource``.

    Attributes:
        space: the networks and their precisions.
        accuracy: of the networks in float32.
        losses: by precision; the others lose nothing.
    """

    space: PrecisionSpace
    accuracy: AccuracySource
    losses: Mapping[str, LossSource]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the accuracies come from, and by precision what is known of losses."""
        losses = {name: dict(each.provenance) for name, each in self.losses.items()}
        return {**self.accuracy.provenance, **({"losses": losses} if losses else {})}

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        """The expected accuracies (0..1), of each network in its precision; [N]."""
        loss_N, _ = self._losses(rows_NC)
        return np.clip(self.accuracy.of_rows(self._known(rows_NC)) - loss_N, 0.0, 1.0)

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """The ends of their 90 % intervals [N]: of accuracy and loss together, as of numbers that do not depend on one another."""
        loss_N, reach_N = self._losses(rows_NC)
        known_NC = self._known(rows_NC)
        accuracy_N, (low_N, high_N) = self.accuracy.of_rows(known_NC), self.accuracy.interval_of_rows(known_NC)
        expected_N = accuracy_N - loss_N
        ends = (expected_N - np.hypot(accuracy_N - low_N, reach_N), expected_N + np.hypot(high_N - accuracy_N, reach_N))
        return np.clip(ends[0], 0.0, 1.0), np.clip(ends[1], 0.0, 1.0)

    def recall(self, rows_NC: Rows, values_N: Floats, /) -> None:
        """Take accuracies that were found before; a source that measures is told what it measured then."""
        if isinstance(self.accuracy, Remembering):
            inside = np.flatnonzero((values_N > 0) & (values_N < 1))  # of others it is not known what was measured
            loss_N, _ = self._losses(rows_NC[inside])
            self.accuracy.recall(self._known(rows_NC[inside]), values_N[inside] + loss_N)

    def _known(self, rows_NC: Rows) -> Rows:
        return self.space.of.rows_in(self.accuracy.space, self.space.without(rows_NC))

    def _losses(self, rows_NC: Rows) -> tuple[Floats, Floats]:
        loss_N, reach_N = np.zeros((2, len(rows_NC)))
        inner_NC = self.space.without(rows_NC)
        for precision, index in self.space.in_precision(rows_NC).items():
            source = self.losses.get(precision)
            if source is not None:
                loss_N[index], reach_N[index] = source.losses_of_rows(self.space.of.rows_in(source.space, inner_NC[index]))
        return loss_N, reach_N


def infos_of(source: LatencySource) -> dict[str, TableInfo]:
    """Where a source's numbers come from, by the name of what they were measured on."""
    sources = source.sources.values() if isinstance(source, LatencyByPrecision) else [source]
    return {each.device_name: each.info for each in sources}


def devices_by_precision(source: LatencySource) -> dict[str, str] | None:
    """The name of what measures a device in each precision; None where precision is no gene."""
    return {name: each.device_name for name, each in source.sources.items()} if isinstance(source, LatencyByPrecision) else None
