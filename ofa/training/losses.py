"""The training loss of a subnet: its task's loss, and distillation from a teacher."""

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
    """The task's loss on the labels; with a teacher, its weighted mean with the distillation loss.

    It is a mean, not a sum, so that one learning rate suits phases with and without a teacher.

    Args:
        outputs: the network's outputs, [B, K].
        targets: labels of the batch, as the task has them.
        task: the task.
        label_smoothing: label smoothing (0..1).
        teacher_outputs: the teacher's outputs on the same images, [B, K].
        distillation_weight: weight of the distillation loss; the labels have weight 1, or 0 if it is infinite.
        divergence: divergence between the teacher's outputs and the network's.

    Returns:
        The loss, a scalar tensor.
    """
    if teacher_outputs is None or distillation_weight == 0:
        return task.loss(outputs, targets, label_smoothing)
    soft = task.distillation_loss(outputs, teacher_outputs, divergence)
    if math.isinf(distillation_weight):
        return soft
    return (task.loss(outputs, targets, label_smoothing) + distillation_weight * soft) / (1 + distillation_weight)
