"""Multi-label classification: binary cross entropy per class, and mean average precision.

Shapes: B images of a batch, N images of a set, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.errors import DataError
from ofa.tasks.divergence import alpha_divergence
from ofa.tasks.task import Divergence, Task

__all__ = ["MultiLabel"]

_DRAWS, _SIGNIFICANCE = 200, 0.01


class MultiLabel(Task):
    """Any number of classes per image; labels are bool [N, K]. The sigmoid of an output is the probability of its class."""

    name = "multi_label"
    metric = "mAP"
    activation = "sigmoid"
    loss_name = "binary cross entropy"

    def check(self, labels: Tensor) -> None:
        if labels.ndim != 2:
            raise DataError(
                "the task 'multi_label' needs a list of classes per image, but these images have one class each; give lists, or set "
                'task = "classification" in the recipe'
            )

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross entropy, averaged over images and classes; smoothing moves targets towards 1/2."""
        smooth = targets.to(outputs.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, smooth)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, divergence: Divergence) -> Tensor:
        """The mean over K binary classification tasks."""
        if divergence == "alpha":
            return alpha_divergence(
                *(torch.stack([each, torch.zeros_like(each)], -1).flatten(0, -2) for each in (outputs, teacher_outputs))
            )
        return F.binary_cross_entropy_with_logits(outputs, teacher_outputs.detach().sigmoid())

    def chance_loss(self, num_classes: int) -> float:
        return math.log(2)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean average precision over the classes that occur (Everingham et al., PASCAL VOC, IJCV 2010).

        The average precision of a class is the mean, over its images, of the precision at the image's output: the share of the class's
        images among all images with at least that output. It equals the area under the precision-recall curve as a step function,
        without interpolation.
        """
        positive_BK = targets >= 0.5 if targets.is_floating_point() else targets.bool()
        order = outputs.argsort(-2, descending=True)
        falling = outputs.gather(-2, order).transpose(-1, -2).contiguous()
        hits = positive_BK.expand_as(outputs).gather(-2, order).transpose(-1, -2)
        # Images with equal outputs are sorted in arbitrary order, so each counts all of them.
        rank = torch.searchsorted(-falling, -falling, right=True)
        precision = hits.cumsum(-1).gather(-1, rank - 1) / rank
        average = (precision * hits).sum(-1) / hits.sum(-1).clamp(min=1)
        known_K = positive_BK.any(0)
        return (average * known_K).sum(-1) / known_K.sum().clamp(min=1)

    def score_of(self, answers: Iterable[tuple[Tensor, Tensor]]) -> float:
        outputs, labels = zip(*answers, strict=True)
        return float(self.score(torch.cat(outputs).double(), torch.cat(labels)))

    def chance(self, labels: Tensor) -> float:
        """The mean score of 200 random outputs."""
        return float(self._random_scores(labels).mean())

    def is_at_chance(self, score: float, labels: Tensor) -> bool:
        """Compared with the 99 % quantile of the scores of 200 random outputs."""
        return score <= float(self._random_scores(labels).quantile(1 - _SIGNIFICANCE))

    def _random_scores(self, labels: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        draws = [torch.rand(labels.shape, dtype=torch.float64, generator=generator) for _ in range(_DRAWS)]
        return torch.stack([self.score(outputs, labels.cpu()) for outputs in draws])
