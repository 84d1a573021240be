"""The adaptive alpha-divergence between a teacher and a student.

Shapes: B images of a batch, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["alpha_divergence"]


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
