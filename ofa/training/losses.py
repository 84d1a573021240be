"""What a subnet is trained to minimize: its task's loss, and a teacher's answers."""

from __future__ import annotations

import math

from torch import Tensor

from ofa.tasks import CLASSIFICATION, Divergence, Task

__all__ = ["training_loss"]


def training_loss(
    outputs: Tensor,
    targets: Tensor,
    *,
    task: Task = CLASSIFICATION,
    label_smoothing: float,
    teacher_outputs: Tensor | None = None,
    distillation_weight: float = 0.0,
    divergence: Divergence = "kl",
) -> Tensor:
    """The task's loss on the labels, and beside a teacher the weighted mean with the distance from its answers.

    It is a mean, so that one learning rate suits phases with and without a teacher.

    Args:
        outputs: [B, K] of a batch.
        targets: of its images.
        task: what they are for.
        label_smoothing: share of a target that says nothing (0..1).
        teacher_outputs: [B, K] of the teacher on the same images.
        distillation_weight: weight of the teacher's answers; the labels weigh 1, and nothing if it is infinite.
        divergence: between the teacher's answers and these.
    """
    if teacher_outputs is None or distillation_weight == 0:
        return task.loss(outputs, targets, label_smoothing)
    soft = task.distillation_loss(outputs, teacher_outputs, divergence)
    if math.isinf(distillation_weight):
        return soft
    return (task.loss(outputs, targets, label_smoothing) + distillation_weight * soft) / (1 + distillation_weight)
