"""What a subnet is trained to minimize.

Shapes: B images of a batch, K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Divergence", "alpha_divergence", "distillation_loss", "training_loss"]

Divergence = Literal["kl", "alpha"]


def distillation_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross entropy with the teacher's probabilities as targets (Hinton et al., 2015, at temperature 1).

    Args:
        logits: [B, K] of the student.
        teacher_logits: [B, K]; no gradient flows into them.

    Returns:
        The mean over the batch, a scalar.
    """
    return F.cross_entropy(logits, teacher_logits.detach().softmax(dim=1))


def alpha_divergence(
    logits: Tensor, teacher_logits: Tensor, *, alpha_min: float = -1.0, alpha_max: float = 1.0, clip: float = 5.0
) -> Tensor:
    """The adaptive alpha-divergence between a teacher and a student (AlphaNet: Wang et al., ICML 2021, sections 3.2 and 3.3).

    A negative alpha punishes a student that is sure where the teacher is not, a positive one a student that misses what the teacher
    holds possible; the larger of the two divergences counts, per image. The ratios of probabilities are clipped, because their
    powers would otherwise have gradients without bound.

    Args:
        logits: [B, K] of the student.
        teacher_logits: [B, K]; no gradient flows into them.
        alpha_min: the negative alpha.
        alpha_max: the positive alpha; at 1 it is the Kullback-Leibler divergence of the student from the teacher.
        clip: largest power of a ratio of the teacher's and the student's probability.

    Returns:
        The mean over the batch, a scalar.
    """
    student_BK, teacher_BK = logits.log_softmax(1), teacher_logits.detach().log_softmax(1)
    both = (_divergence(student_BK, teacher_BK, alpha, clip) for alpha in (alpha_min, alpha_max))
    return torch.maximum(*both).mean()


def _divergence(student_BK: Tensor, teacher_BK: Tensor, alpha: float, clip: float) -> Tensor:
    """D_alpha(teacher || student) of each image; the value is exact, its gradient that of the clipped powers.

    The gradient by the student's log probability is that of ``-power / alpha`` weighted by the student's probability (paper,
    equation 5), so the clipped power is taken as a constant weight there.
    """
    if abs(alpha) < 1e-3:  # the limit is KL(student || teacher)
        return (student_BK.exp() * (student_BK - teacher_BK)).sum(1)
    log_ratio = teacher_BK - student_BK.detach()
    power_BK = (alpha * log_ratio).clamp(max=math.log(clip)).exp()
    if abs(alpha - 1) < 1e-3:  # the limit is KL(teacher || student); its ratios have the power one and need the same clip
        value = (teacher_BK.exp() * (teacher_BK - student_BK.detach())).sum(1)
    else:
        value = (student_BK.detach().exp() * (power_BK - 1)).sum(1) / (alpha * (alpha - 1))
    slope = -(student_BK.detach().exp() * power_BK / alpha * student_BK).sum(1)
    return value.detach() + slope - slope.detach()


def training_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float,
    teacher_logits: Tensor | None = None,
    distillation_weight: float = 0.0,
    divergence: Divergence = "kl",
) -> Tensor:
    """Cross entropy with smoothed labels, and with a teacher's soft targets where there is a teacher.

    It is the weighted mean of both, so that one learning rate suits phases with and without a teacher.

    Args:
        logits: [B, K].
        labels: int64 [B], or the probabilities of mixed labels, float [B, K].
        label_smoothing: share of a target that is spread over all classes (0..1).
        teacher_logits: [B, K] of the teacher on the same images.
        distillation_weight: weight of the soft targets; the labels weigh 1, and nothing if it is infinite.
        divergence: ``kl`` for cross entropy with the soft targets, which has the gradient of the Kullback-Leibler divergence;
            ``alpha`` for the adaptive alpha-divergence.
    """
    if teacher_logits is None or distillation_weight == 0:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    soft = distillation_loss(logits, teacher_logits) if divergence == "kl" else alpha_divergence(logits, teacher_logits)
    if math.isinf(distillation_weight):
        return soft
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return (hard + distillation_weight * soft) / (1 + distillation_weight)
