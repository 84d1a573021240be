"""The adaptive alpha-divergence, a distillation loss.

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

    A negative alpha penalizes a student that is overconfident where the teacher is uncertain. A positive alpha penalizes a student that
    gives too little probability to classes that the teacher considers possible. Per image, the larger of the two divergences counts.
    Powers of the ratios of probabilities are clipped, because their gradients would be unbounded.

    Args:
        logits: of the student [B, K].
        teacher_logits: [B, K]; they get no gradient.
        alpha_min: the negative alpha.
        alpha_max: the positive alpha; 1 gives the Kullback-Leibler divergence KL(teacher || student).
        clip: largest value of (teacher's probability / student's probability) ** alpha.

    Returns:
        The mean over the batch, a scalar.
    """
    student_BK, teacher_BK = logits.log_softmax(1), teacher_logits.detach().log_softmax(1)
    both = (_divergence(student_BK, teacher_BK, alpha, clip) for alpha in (alpha_min, alpha_max))
    return torch.maximum(*both).mean()


def _divergence(student_BK: Tensor, teacher_BK: Tensor, alpha: float, clip: float) -> Tensor:
    """D_alpha(teacher || student) of each image [B], with the gradient of the clipped powers.

    The gradient with respect to the student's log probability is ``-power / alpha`` times the student's probability (paper, equation 5),
    so the clipped power enters it as a constant weight.
    """
    if abs(alpha) < 1e-3:  # the limit alpha -> 0 is KL(student || teacher)
        return (student_BK.exp() * (student_BK - teacher_BK)).sum(1)
    log_ratio = teacher_BK - student_BK.detach()
    power_BK = (alpha * log_ratio).clamp(max=math.log(clip)).exp()
    if abs(alpha - 1) < 1e-3:  # the limit alpha -> 1 is KL(teacher || student); its ratios need the same clip
        value = (teacher_BK.exp() * (teacher_BK - student_BK.detach())).sum(1)
    else:
        value = (student_BK.detach().exp() * (power_BK - 1)).sum(1) / (alpha * (alpha - 1))
    slope = -(student_BK.detach().exp() * power_BK / alpha * student_BK).sum(1)
    return value.detach() + slope - slope.detach()
