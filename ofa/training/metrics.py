"""Metrics of a run, one entry for each epoch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ofa.errors import SchemaError
from ofa.lines import Lines
from ofa.schema import parse

__all__ = ["EpochMetrics", "read_metrics"]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Metrics of one epoch.

    Attributes:
        phase: name of the phase.
        epoch: epoch within the phase, counted from 1.
        epochs: number of epochs of the phase.
        loss: training loss, including label smoothing and distillation; the mean over all steps and subnets.
        accuracy: the task's score (0..1) of the sampled subnets on augmented training images, in training mode; the mean over batches.
        learning_rate: learning rate of the epoch's last step.
        images_per_s: training images per second; an image counts once, however many subnets process it.
        duration_s: wall-clock seconds, without the evaluation.
        step: steps of the run so far.
        waiting_s: seconds of ``duration_s`` in which a step waited for its batch.
        cross_entropy: the task's loss on the training labels alone, in nats; the mean over all steps and subnets. Compare it with
            ``Task.chance_loss``, the loss of guessing. None in files of versions that did not write it.
        rate_factor: factor of the recipe's learning rates; below 1 after a setback.
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
    """Read the metrics of a run's epochs.

    Returns:
        The metrics, and the number of damaged lines, which are left out.

    Raises:
        FileError: the file cannot be read.
    """
    found = Lines(path).read()
    epochs, damaged = dict[EpochMetrics, None](), found.damaged
    for entry in found.entries:
        try:
            epochs[parse(EpochMetrics, entry)] = None  # equal entries are the same line written twice
        except SchemaError:  # a line of an earlier version, without a checksum
            damaged += 1
    return tuple(epochs), damaged
