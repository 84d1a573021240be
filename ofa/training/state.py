"""What a run is captured as."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["SECONDS_BETWEEN_STATES", "SECONDS_LEFT_OUT", "StatePace", "Throttle", "Totals", "TrainingState", "part_of"]

SECONDS_BETWEEN_STATES, SECONDS_LEFT_OUT = 240.0, 30.0
"""Longest time until the next state, whatever a recipe's ``checkpoint_steps``, and that in which one may be left out after another was
written: together less than the five minutes of work that may be lost."""


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


class StatePace:
    """Tells by a clock when a state is due; asked again and again while training goes on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = self._asked_at = clock()

    def would_be_late(self) -> bool:
        """Whether a state would come too late if it waited for the next question, going by the time since the one before."""
        now = self._clock()
        since, self._asked_at = now - self._asked_at, now
        return now + since - self._told_at > SECONDS_BETWEEN_STATES

    def told(self) -> None:
        """A state was handed over now."""
        self._told_at = self._clock()


class Throttle:
    """Leaves out states that follow another within ``SECONDS_LEFT_OUT``: training that goes on from an older one ends the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest = -math.inf

    def is_due(self, *, always: bool = False) -> bool:
        """Whether the state at hand is to be written; ``always`` where none may come after it."""
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
        """Take in a step."""
        self.loss += loss
        self.cross_entropy += cross_entropy
        self.accuracy += accuracy


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix and a dot, by the rest of their names."""
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
