"""Latencies and accuracies of networks in several precisions, from one source per precision.

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
    """A source of the accuracy loss of networks in a precision, such as ``search.predictor.quantization.QuantizationLoss``."""

    @property
    def precision(self) -> str:
        """The precision."""

    @property
    def space(self) -> Space:
        """The space of the encoded archs."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Origin of the losses, as JSON values."""

    def losses_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """Losses of accuracy (a share in 0..1; negative for a gain), and half widths of their 90 % intervals; [N] each."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LatencyByPrecision:
    """Latencies of one device with a table for each precision. It is a ``LatencySource``.

    Attributes:
        space: the space over precisions.
        sources: one source per precision, of ``space.of`` or of a space that contains it.
    """

    space: PrecisionSpace
    sources: Mapping[str, LatencySource]

    @property
    def _first(self) -> LatencySource:
        return self.sources.get("fp32", next(iter(self.sources.values())))

    @property
    def device_name(self) -> str:
        """Name of the float32 device; of the first device if there is none in float32."""
        return self._first.device_name

    @property
    def info(self) -> TableInfo:
        """Origin of the latencies of ``device_name``; ``infos_of`` returns those of all precisions."""
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
        """Latencies of networks in their precisions in ms, with the ends of their intervals; [N] each."""
        latency_N, low_N, high_N = self._spread(rows_NC, lambda source, inner_NC: np.stack(source.estimates_of_rows(inner_NC)), (3,))
        return latency_N, low_N, high_N

    def energies_of_rows(self, rows_NC: Rows, /) -> Floats:
        """Energies of one call of networks in their precisions in mJ; [N]."""
        return self._spread(rows_NC, lambda source, inner_NC: source.energies_of_rows(inner_NC), ())

    def _spread(self, rows_NC: Rows, ask: Callable[[LatencySource, Rows], Floats], shape: tuple[int, ...]) -> Floats:
        """The answers of each precision's source for its networks, merged; [*shape, N]."""
        found, inner_NC = np.empty((*shape, len(rows_NC))), self.space.without(rows_NC)
        for precision, index in self.space.in_precision(rows_NC).items():
            source = self.sources[precision]
            found[..., index] = ask(source, self.space.of.rows_in(source.space, inner_NC[index]))
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class AccuracyByPrecision:
    """Accuracies of networks in their precisions: float32 accuracy minus loss. It is an ``AccuracySource``.

    Attributes:
        space: the space over precisions.
        accuracy: accuracies of the networks in float32.
        losses: loss sources by precision; other precisions lose nothing.
    """

    space: PrecisionSpace
    accuracy: AccuracySource
    losses: Mapping[str, LossSource]

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of the accuracies, with the origin of the losses by precision."""
        losses = {name: dict(each.provenance) for name, each in self.losses.items()}
        return {**self.accuracy.provenance, **({"losses": losses} if losses else {})}

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        """The expected accuracies (0..1), of each network in its precision; [N]."""
        loss_N, _ = self._losses(rows_NC)
        return np.clip(self.accuracy.of_rows(self._known(rows_NC)) - loss_N, 0.0, 1.0)

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """The ends of their 90 % intervals; [N] each. Errors of accuracy and loss are combined as independent."""
        loss_N, reach_N = self._losses(rows_NC)
        known_NC = self._known(rows_NC)
        accuracy_N, (low_N, high_N) = self.accuracy.of_rows(known_NC), self.accuracy.interval_of_rows(known_NC)
        expected_N = accuracy_N - loss_N
        ends = (expected_N - np.hypot(accuracy_N - low_N, reach_N), expected_N + np.hypot(high_N - accuracy_N, reach_N))
        return np.clip(ends[0], 0.0, 1.0), np.clip(ends[1], 0.0, 1.0)

    def recall(self, rows_NC: Rows, values_N: Floats, /) -> None:
        """Store accuracies that were found before; a measuring source gets back its own float32 accuracies."""
        if isinstance(self.accuracy, Remembering):
            inside = np.flatnonzero((values_N > 0) & (values_N < 1))  # clipped values do not tell the float32 accuracy
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
    """Origin of a source's latencies, by measuring device."""
    sources = source.sources.values() if isinstance(source, LatencyByPrecision) else [source]
    return {each.device_name: each.info for each in sources}


def devices_by_precision(source: LatencySource) -> dict[str, str] | None:
    """Name of the measuring device for each precision; None if precision is no gene."""
    return {name: each.device_name for name, each in source.sources.items()} if isinstance(source, LatencyByPrecision) else None
