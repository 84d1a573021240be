"""What a run tells about itself."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ofa.errors import SchemaError
from ofa.lines import Lines
from ofa.schema import parse

__all__ = ["EpochMetrics", "read_metrics"]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one epoch came to.

    Attributes:
        phase: name of the phase.
        epoch: counted from 1 within the phase.
        epochs: of the phase.
        loss: what was minimized, with smoothed labels and soft targets where there are such; the mean over all steps and subnets.
        accuracy: the task's score (0..1) of the sampled subnets on training images, augmented, in training mode; the mean over batches.
        learning_rate: of the epoch's last step.
        images_per_s: training images a second, however many subnets saw each.
        duration_s: wall-clock seconds, without those of the evaluation.
        step: steps of the run so far.
        waiting_s: seconds of ``duration_s`` in which a step waited for its batch.
        cross_entropy: the task's loss on the labels of the training images alone, in nats; the mean over all steps and subnets.
            ``Task.chance_loss`` is that of guessing. None in files of versions that did not write it.
        rate_factor: what the recipe's learning rates are multiplied by; below 1 after a setback.
        smallest_accuracy, middle_accuracy, largest_accuracy: the task's score (0..1) of these networks of the space, calibrated, on the
            selection images; None if they were not evaluated after this epoch.
    """

    phase: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    learning_rate: float
    images_per_s: float
    duration_s: float
    step: int = 0
    waiting_s: float = 0.0
    cross_entropy: float | None = None
    rate_factor: float = 1.0
    smallest_accuracy: float | None = None
    middle_accuracy: float | None = None
    largest_accuracy: float | None = None


def read_metrics(path: str | os.PathLike[str]) -> tuple[tuple[EpochMetrics, ...], int]:
    """What the epochs of a run came to, by its file of them, and how many of its lines are damaged and left out.

    Raises:
        FileError: the file cannot be read.
    """
    found = Lines(path).read()
    epochs, damaged = dict[EpochMetrics, None](), found.damaged
    for entry in found.entries:
        try:
            epochs[parse(EpochMetrics, entry)] = None  # no two are equal but where a line stands there twice
        except SchemaError:  # of an earlier version, whose lines have no checksum
            damaged += 1
    return tuple(epochs), damaged
