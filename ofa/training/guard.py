"""Detects diverged training, so that the loop can roll back before hours are lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ofa.errors import RecipeError

__all__ = ["Guard", "Setback", "too_many_setbacks"]

_MEMORY = 0.95
"""Decay of the smoothed values: they average some twenty steps, so that one hard batch does not count."""
_STEPS_TO_SETTLE = 40


@dataclass(frozen=True, kw_only=True)
class Setback:
    """Training diverged and was rolled back to an earlier state.

    Attributes:
        phase: name of the phase.
        epoch: epoch within the phase, counted from 1.
        step: step of the whole run at which the divergence was seen.
        back_to: step of the last good state, from which training goes on.
        reason: what was seen, in words.
        rate_factor: factor of all learning rates from now on.
    """

    phase: str
    epoch: int
    step: int
    back_to: int
    reason: str
    rate_factor: float


def too_many_setbacks(most: int, reason: str, phase: str, epoch: int, learning_rate: float) -> RecipeError:
    """The error of a training that diverged more than ``most`` times, the last time in this phase and epoch at this rate."""
    return RecipeError(
        f"training must not go wrong more than {most} times, but {reason} in phase {phase}, epoch {epoch}, at learning rate "
        f"{learning_rate:.3g}; lower phases.{phase}.learning_rate or lengthen its warmup_epochs"
    )


@dataclass(eq=False)
class Guard:
    """Watches the loss and the score of one phase.

    A loss that is not finite is seen at once. A collapse is a smoothed loss above 1.5 times the best so far together with a smoothed
    score below half of the best so far: either alone can be caused by a hard batch of subnets.
    """

    steps: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    best_loss: float = math.inf
    best_accuracy: float = 0.0

    def check(self, loss: float, accuracy: float) -> str | None:
        """Record a step's loss and score; returns what is wrong, in words, or None."""
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        self.steps += 1
        keep = min(_MEMORY, (self.steps - 1) / self.steps)
        self.loss = keep * self.loss + (1 - keep) * loss
        self.accuracy = keep * self.accuracy + (1 - keep) * accuracy
        if self.steps < _STEPS_TO_SETTLE:
            return None
        if self.loss > 1.5 * self.best_loss and self.accuracy < 0.5 * self.best_accuracy:
            return (
                f"the mean loss rose from {self.best_loss:.3g} to {self.loss:.3g} while the score fell from "
                f"{self.best_accuracy:.1%} to {self.accuracy:.1%}"
            )
        self.best_loss = min(self.best_loss, self.loss)
        self.best_accuracy = max(self.best_accuracy, self.accuracy)
        return None
