"""Sources of latencies: a latency table, or measurements of each network on the device.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from devices import Device, TimingPolicy, describe
from latency_tables.info import TableInfo
from latency_tables.timing import time_archs
from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.progress import Progress, silent
from ofa.space import Space

__all__ = ["LatencySource", "MeasuredLatency"]

_PROCESSES = 3


class LatencySource(Protocol):
    """A source of latencies on one device, such as ``latency_tables.Estimator`` or ``MeasuredLatency``."""

    @property
    def space(self) -> Space:
        """The space of the encoded archs."""

    @property
    def device_name(self) -> str:
        """The device."""

    @property
    def info(self) -> TableInfo:
        """Origin of the latencies."""

    @property
    def has_energy(self) -> bool:
        """Whether it knows energies."""

    @property
    def is_measured(self) -> bool:
        """Whether it measures each network, which takes seconds, instead of computing latencies from a table."""

    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats, Floats]:
        """Latencies and the ends of their intervals in ms, [N] each; the ends equal the latency where no interval is known."""

    def energies_of_rows(self, rows_NC: Rows, /) -> Floats:
        """Energies of one call in mJ, if ``has_energy``; [N]."""


class MeasuredLatency:
    """Exports each network with random weights and times it on a device: exact and slow. It is a ``LatencySource``.

    Args:
        space: the space of the networks.
        device: the device that times them.
        rng: draws the inputs and the order of measurement.
        policy: stopping rule of a measurement; None for the default of ``devices``.
        processes: number of processes that time each network; the median process counts.
        progress: receives the progress of a measurement.
    """

    def __init__(
        self,
        space: Space,
        device: Device,
        *,
        rng: np.random.Generator,
        policy: TimingPolicy | None = None,
        processes: int = _PROCESSES,
        progress: Progress = silent,
    ) -> None:
        self.space = space
        self._device = device
        self._rng = rng
        self._policy = policy
        self._processes = processes
        self._progress = progress
        self._known: dict[Arch, float] = {}

    @property
    def device_name(self) -> str:
        """The device."""
        return self._device.name

    @cached_property
    def info(self) -> TableInfo:
        """What measures."""
        version = str(describe(self._device)["runtime_version"])
        return TableInfo(device=self._device.to_json(), runtime_version=version, source="measured", processes=self._processes)

    @property
    def is_measured(self) -> bool:
        """True: every network is timed."""
        return True

    @property
    def has_energy(self) -> bool:
        """False: only times are measured."""
        return False

    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats, Floats]:
        """The measured latencies in ms, three times since no interval is known; [N] each. Each network is measured once.

        Raises:
            DeviceError: the device cannot measure.
        """
        archs = [self.space.decode(row) for row in rows_NC.tolist()]
        new = [arch for arch in dict.fromkeys(archs) if arch not in self._known]
        if new:
            self._known.update(zip(new, self._times(new).tolist(), strict=True))
        measured_N = np.array([self._known[arch] for arch in archs])
        return measured_N, measured_N, measured_N

    def recall(self, rows_NC: Rows, values_N: Floats, /) -> None:
        """Store latencies ``values_N`` in ms that were measured before; the networks ``rows_NC`` are not measured again."""
        self._known.update(zip(map(self.space.decode, rows_NC.tolist()), values_N.tolist(), strict=True))

    def energies_of_rows(self, rows_NC: Rows, /) -> Floats:
        """NaN, since no energies are measured; [N]."""
        return np.full(len(rows_NC), np.nan)

    def _times(self, archs: Sequence[Arch]) -> Floats:
        return time_archs(
            self.space,
            archs,
            self._device,
            rng=self._rng,
            policy=self._policy,
            processes=self._processes,
            progress=self._progress,
        )
