"""What a subnet is trained to minimize."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["distillation_loss", "training_loss"]


def distillation_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross entropy with the teacher's probabilities as targets (Hinton et al., 2015, at temperature 1).

    Args:
        logits: [B, classes] of the student.
        teacher_logits: [B, classes]; no gradient flows into them.

    Returns:
        The mean over the batch, a scalar.
    """
    return F.cross_entropy(logits, teacher_logits.detach().softmax(dim=1))


def training_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float, teacher_logits: Tensor | None = None, distillation_weight: float = 0.0
) -> Tensor:
    """Cross entropy with smoothed labels, and with a teacher's soft targets where there is a teacher.

    It is the weighted mean of both, so that one learning rate suits phases with and without a teacher.

    Args:
        logits: [B, classes].
        labels: int64 [B].
        label_smoothing: share of a target that is spread over all classes (0..1).
        teacher_logits: [B, classes] of the teacher on the same images.
        distillation_weight: weight of the soft targets; the labels weigh 1.
    """
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if teacher_logits is None or distillation_weight == 0:
        return hard
    return (hard + distillation_weight * distillation_loss(logits, teacher_logits)) / (1 + distillation_weight)
