"""What a network is for: what its outputs mean, what they are trained to, and how good they are.

Shapes: B images of a batch, N of a set, K classes; ``..`` any dimensions before, such as subnets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor

__all__ = ["Divergence", "Task"]

Divergence = Literal["kl", "alpha"]


class Task(ABC):
    """A task over images with K named classes and networks with one output a class.

    Targets are labels as images have them, or the float [B, K] that mixing the images of a batch makes of them.

    Attributes:
        name: in recipes and files.
        metric: what its score is called.
        loss_name: what its loss is called.
        activation: what makes probabilities of a network's outputs: ``softmax`` over the classes, ``sigmoid`` of each, or nothing where
            the outputs are the answer.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    loss_name: ClassVar[str]
    activation: ClassVar[str] = ""

    @abstractmethod
    def check(self, labels: Tensor) -> None:
        """Raise DataError unless the labels of a set of images are of the kind that the task is about."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """What a network is to minimize on the labels, a scalar: the mean over the images.

        Args:
            outputs: [B, K].
            targets: of the B images.
            label_smoothing: share of a target that says nothing (0..1).
        """

    @abstractmethod
    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, divergence: Divergence) -> Tensor:
        """How far a student's answers are from a teacher's, a scalar: the mean over the images.

        Args:
            outputs: [B, K] of the student.
            teacher_outputs: [B, K]; no gradient flows into them.
            divergence: ``kl`` has the gradient of the Kullback-Leibler divergence; ``alpha`` is the adaptive alpha-divergence.
        """

    @abstractmethod
    def chance_loss(self, num_classes: int) -> float:
        """The loss of a network that holds all answers equally likely."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How good answers are, 0..1, shape [..].

        Args:
            outputs: [.., B, K].
            targets: of the B images.
        """

    @abstractmethod
    def score_of(self, answers: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The score over all images of a set, 0..1.

        Args:
            answers: batch after batch the outputs and the labels, where the network lies.
        """

    @abstractmethod
    def chance(self, labels: Tensor) -> float:
        """The score (0..1) of a network that has learned nothing of the images; labels of N images."""

    @abstractmethod
    def is_at_chance(self, score: float, labels: Tensor) -> bool:
        """Whether a score on N images is not clearly above chance: a one-sided test at 1 %."""

    def standard_error(self, score: float, images: int) -> float:
        """How far a score on some images is from that on all images like them, in standard deviations; NaN if that is not known."""
        return float("nan")
