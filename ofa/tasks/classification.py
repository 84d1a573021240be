"""Single-label classification: cross entropy and top-1 accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.errors import DataError
from ofa.tasks.divergence import alpha_divergence
from ofa.tasks.task import Divergence, Task

__all__ = ["Classification"]

_SIGNIFICANCE = 0.01


class Classification(Task):
    """One class per image; labels are int64 [N]."""

    name = "classification"
    metric = "accuracy"
    activation = "softmax"
    loss_name = "cross entropy"

    def check(self, labels: Tensor) -> None:
        if labels.ndim != 1:
            raise DataError(
                "the task 'classification' needs one class per image, but these images have lists of classes; set "
                'task = "multi_label" in the recipe'
            )

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, divergence: Divergence) -> Tensor:
        """Cross entropy with the teacher's probabilities as targets (Hinton et al., 2015, at temperature 1), or the alpha-divergence."""
        if divergence == "alpha":
            return alpha_divergence(outputs, teacher_outputs)
        return F.cross_entropy(outputs, teacher_outputs.detach().softmax(dim=1))

    def chance_loss(self, num_classes: int) -> float:
        return math.log(num_classes)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        return (outputs.argmax(-1) == labels).float().mean(-1)

    def score_of(self, answers: Iterable[tuple[Tensor, Tensor]]) -> float:
        # Summed on the network's device and read once, because each read synchronizes the GPU.
        right, judged = torch.zeros((), dtype=torch.int64), 0
        for outputs, labels in answers:
            right = right.to(outputs.device) + (outputs.argmax(1) == labels).sum()
            judged += len(labels)
        return int(right) / judged

    def chance(self, labels: Tensor) -> float:
        """The accuracy of always predicting the most frequent class."""
        return float(torch.bincount(labels).max()) / len(labels)

    def is_at_chance(self, score: float, labels: Tensor) -> bool:
        """By a binomial test."""
        from scipy.stats import binomtest  # imported here because it takes a second

        chance = min(1.0, self.chance(labels))
        return float(binomtest(round(score * len(labels)), len(labels), chance, alternative="greater").pvalue) > _SIGNIFICANCE

    def standard_error(self, score: float, images: int) -> float:
        """Binomial standard error of a share of independent images."""
        return math.sqrt(score * (1 - score) / images)
