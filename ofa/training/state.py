"""The saved state of a run, and how often it is saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["SECONDS_BETWEEN_STATES", "SECONDS_LEFT_OUT", "StatePace", "Throttle", "Totals", "TrainingState", "part_of"]

SECONDS_BETWEEN_STATES, SECONDS_LEFT_OUT = 240.0, 30.0
"""Longest time between states whatever a recipe's ``checkpoint_steps``, and the time after a written state within which a further one may
be skipped. Together they are less than five minutes, the most work that may be lost."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The full state of a run.

    Attributes:
        step: number of steps done.
        tensors: weights, state of the optimizer, averages and teacher, by name.
        values: counters and settings, as JSON values.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class StatePace:
    """Decides by a clock when a state is due; asked regularly during training."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = self._asked_at = clock()

    def would_be_late(self) -> bool:
        """Whether a state would be late if it waited for the next call, assumed as far away as the previous call."""
        now = self._clock()
        since, self._asked_at = now - self._asked_at, now
        return now + since - self._told_at > SECONDS_BETWEEN_STATES

    def told(self) -> None:
        """Note that a state was just handed over."""
        self._told_at = self._clock()


class Throttle:
    """Skips states within ``SECONDS_LEFT_OUT`` of the last written one: training resumed from an older state ends the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest = -math.inf

    def is_due(self, *, always: bool = False) -> bool:
        """Whether the current state is to be written; pass ``always`` if it may be the last one."""
        now = self._clock()
        due = always or now - self._latest >= SECONDS_LEFT_OUT
        if due:
            self._latest = now
        return due


@dataclass(eq=False)
class Totals:
    """Sums over the steps of an epoch so far."""

    loss: float = 0.0
    cross_entropy: float = 0.0
    accuracy: float = 0.0
    duration_s: float = 0.0
    waiting_s: float = 0.0

    def add(self, loss: float, cross_entropy: float, accuracy: float) -> None:
        """Add the values of a step."""
        self.loss += loss
        self.cross_entropy += cross_entropy
        self.accuracy += accuracy


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix and a dot, by the rest of their names."""
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
