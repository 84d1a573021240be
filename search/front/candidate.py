"""A network of a front, and what is promised of it."""

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
    """A network and what is promised of it.

    Attributes:
        arch: the network.
        precision: that it is meant in, where the front has several; None for that of its devices.
        accuracy: 0..1.
        accuracy_low, accuracy_high: ends of its 90 % interval; None where it is not known.
        latencies: by device.
        energies_mj: by device, of those whose tables know it.
        costs: what follows from the network alone, by name (``ofa.costs``).
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
        """All of it, as JSON values; what is promised on the first device stands beside the other costs too."""
        devices = {name: latency.to_json() for name, latency in self.latencies.items()}
        for name, energy_mj in self.energies_mj.items():
            devices[name][ENERGY] = energy_mj
        accuracy = {"accuracy": self.accuracy, "accuracy_low": self.accuracy_low, "accuracy_high": self.accuracy_high}
        first = next(iter(devices.values()), {})
        meant = {} if self.precision is None else {"precision": self.precision}
        return {**accuracy, **first, **self.costs, "devices": devices, **meant, "arch": self.arch.to_json()}

    @property
    def words(self) -> str:
        """The network in a few words, with its precision where it has one of its own."""
        return self.arch.in_words if self.precision is None else f"{self.arch.in_words} in {self.precision}"
