"""A network of a front, with its accuracy and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa.arch import Arch
from ofa.latency import Latency
from search.budget import ENERGY

__all__ = ["Candidate"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network with its accuracy and costs.

    Attributes:
        arch: the network.
        precision: its precision if the front has several; None for the precision of the devices.
        accuracy: 0..1.
        accuracy_low, accuracy_high: ends of the accuracy's 90 % interval; None where unknown.
        latencies: latency in ms with its interval, by device.
        energies_mj: energy of one call in mJ, by device; only devices whose tables have energies.
        costs: costs that do not depend on the device, by name (``ofa.costs``).
    """

    arch: Arch
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    latencies: Mapping[str, Latency]
    energies_mj: Mapping[str, float]
    costs: Mapping[str, int]
    precision: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All attributes as JSON values; latency and energy on the first device are repeated at the top level."""
        devices = {name: latency.to_json() for name, latency in self.latencies.items()}
        for name, energy_mj in self.energies_mj.items():
            devices[name][ENERGY] = energy_mj
        accuracy = {"accuracy": self.accuracy, "accuracy_low": self.accuracy_low, "accuracy_high": self.accuracy_high}
        first = next(iter(devices.values()), {})
        meant = {} if self.precision is None else {"precision": self.precision}
        return {**accuracy, **first, **self.costs, "devices": devices, **meant, "arch": self.arch.to_json()}

    @property
    def words(self) -> str:
        """The network in a few words, with its precision if it has one."""
        return self.arch.in_words if self.precision is None else f"{self.arch.in_words} in {self.precision}"
