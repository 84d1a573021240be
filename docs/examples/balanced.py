"""A task: one class an image, judged by balanced accuracy, in which rare classes count as much as frequent ones."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.tasks.classification import Classification


class BalancedClassification(Classification):
    """Classification in all but its score, which is the mean recall over the classes that the labels have."""

    name = "balanced"
    metric = "balanced accuracy"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean recall of outputs [.., B, K] on the labels, or mixed targets, of B images."""
        truth_BK = F.one_hot(targets if targets.ndim == 1 else targets.argmax(1), outputs.shape[-1]).to(outputs.dtype)
        right_BK = F.one_hot(outputs.argmax(-1), outputs.shape[-1]) * truth_BK
        return _mean_recall(right_BK.sum(-2), truth_BK.sum(0))

    def score_of(self, answers: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The mean recall over all images of a set."""
        outputs, labels = zip(*answers, strict=True)
        return float(self.score(torch.cat(outputs).double(), torch.cat(labels)))

    def chance(self, labels: Tensor) -> float:
        """One answer for all images, or random ones, have one class right of as many as the labels have."""
        return 1 / len(labels.unique())

    def is_at_chance(self, score: float, labels: Tensor) -> bool:
        """By the deviation of random answers: the mean of K shares, each of the images of one class."""
        chance, counts = self.chance(labels), torch.bincount(labels)
        variance = sum(chance * (1 - chance) / int(count) for count in counts if count) * chance**2
        return score <= chance + 2.33 * math.sqrt(variance)

    def standard_error(self, score: float, images: int) -> float:
        """Not known without the counts of the classes."""
        return float("nan")


def _mean_recall(right_K: Tensor, images_K: Tensor) -> Tensor:
    known_K = images_K > 0
    return (right_K / images_K.clamp(min=1))[..., known_K].mean(-1)


BALANCED = BalancedClassification()
