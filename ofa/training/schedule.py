"""The phase and epoch of each step of a run, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ofa.training.phase import Phase

__all__ = ["Place", "Schedule", "Span", "scheduled_rate"]

Span = Literal["phase", "run"]


@dataclass(frozen=True)
class Place:
    """Position of a step in a run.

    Attributes:
        number: index of the phase in the recipe.
        phase: the phase.
        epoch: epoch within the phase, counted from 0.
        offset: the step's number within the epoch, from 0.
        step_in_phase: the step's number within the phase, from 0.
        epoch_start: the step of the run at which the epoch begins.
    """

    number: int
    phase: Phase
    epoch: int
    offset: int
    step_in_phase: int
    epoch_start: int


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, counted from 0.

    Attributes:
        phases: the phases of the run.
        steps_per_epoch: steps per epoch, the same in all phases.
        span: range of the learning rate's cosine annealing: each ``phase``, or the whole ``run``.
    """

    phases: Sequence[Phase]
    steps_per_epoch: int
    span: Span = "phase"

    @property
    def total(self) -> int:
        """Steps of all phases."""
        return self.steps_per_epoch * sum(phase.epochs for phase in self.phases)

    def place(self, step: int) -> Place:
        """The position of a step below ``total``."""
        first = 0
        for number, phase in enumerate(self.phases):
            length = phase.epochs * self.steps_per_epoch
            if step < first + length:
                epoch, offset = divmod(step - first, self.steps_per_epoch)
                return Place(number, phase, epoch, offset, step - first, step - offset)
            first += length
        raise IndexError(step)

    def rate(self, place: Place) -> float:
        """The learning rate of a step."""
        if self.span == "phase":
            return scheduled_rate(place.phase, place.step_in_phase, self.steps_per_epoch)
        risen = min(1.0, (place.step_in_phase + 1) / (place.phase.warmup_epochs * self.steps_per_epoch + 1))
        first, last = self._span(place.number)
        before, length = (
            self.steps_per_epoch * sum(phase.epochs for phase in self.phases[start:end]) for start, end in ((0, first), (first, last))
        )
        return place.phase.learning_rate * risen * _cosine(place.epoch_start + place.offset - before, length)

    def _span(self, number: int) -> tuple[int, int]:
        """The phases (first, one past the last) of the cosine that contains a phase; a phase with ``restart`` begins a new cosine."""
        first = max((each for each in range(1, number + 1) if self.phases[each].restart), default=0)
        last = next((each for each in range(number + 1, len(self.phases)) if self.phases[each].restart), len(self.phases))
        return first, last


def scheduled_rate(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """The rate at a step of a phase, counted from 0: linear warm-up to ``phase.learning_rate``, then cosine annealing to zero."""
    warmup, total = phase.warmup_epochs * steps_per_epoch, phase.epochs * steps_per_epoch
    if step < warmup:
        return phase.learning_rate * (step + 1) / (warmup + 1)
    return phase.learning_rate * _cosine(step - warmup, total - warmup)


def _cosine(done: float, total: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done / max(total, 1)))
