"""What a run is captured as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Totals", "TrainingState", "part_of"]


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that decides how a run goes on.

    Attributes:
        step: steps done.
        tensors: weights, state of the optimizer, averages and teacher, by name.
        values: counters, as JSON values.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(eq=False)
class Totals:
    """Sums over the steps of an epoch so far."""

    loss: float = 0.0
    cross_entropy: float = 0.0
    accuracy: float = 0.0
    duration_s: float = 0.0
    waiting_s: float = 0.0

    def add(self, loss: float, cross_entropy: float, accuracy: float) -> None:
        """Take in a step."""
        self.loss += loss
        self.cross_entropy += cross_entropy
        self.accuracy += accuracy


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix and a dot, by the rest of their names."""
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
