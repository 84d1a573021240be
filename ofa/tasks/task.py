"""The base class of tasks: kind of labels, loss, distillation loss and metric.

Shapes: B images of a batch, N images of a set, K classes; ``..`` any leading dimensions, such as subnets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor

__all__ = ["Divergence", "Task"]

Divergence = Literal["kl", "alpha"]


class Task(ABC):
    """A task on images with K named classes, for networks with one output per class.

    Targets are labels, or float [B, K] if images of a batch were mixed (mixup, CutMix).

    Attributes:
        name: in recipes and files.
        metric: name of the score.
        loss_name: name of the loss.
        activation: function from outputs to probabilities: ``softmax`` over the classes, ``sigmoid`` of each output, or empty if the
            outputs are the answer.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    loss_name: ClassVar[str]
    activation: ClassVar[str] = ""

    @abstractmethod
    def check(self, labels: Tensor) -> None:
        """Check the labels of a set of images.

        Raises:
            DataError: the labels are not of the task's kind.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The training loss: the mean over the images, a scalar.

        Args:
            outputs: [B, K].
            targets: of the B images.
            label_smoothing: share of each target that is replaced by an uninformative one, 0..1.
        """

    @abstractmethod
    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, divergence: Divergence) -> Tensor:
        """The distillation loss between a student and a teacher: the mean over the images, a scalar.

        Args:
            outputs: of the student [B, K].
            teacher_outputs: [B, K]; they get no gradient.
            divergence: ``kl`` for a loss with the gradient of the Kullback-Leibler divergence; ``alpha`` for the adaptive
                alpha-divergence.
        """

    @abstractmethod
    def chance_loss(self, num_classes: int) -> float:
        """The loss of a network that gives all answers the same probability."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The score of outputs, 0..1; shape [..].

        Args:
            outputs: [.., B, K].
            targets: of the B images.
        """

    @abstractmethod
    def score_of(self, answers: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The score over all images of a set, 0..1.

        Args:
            answers: (outputs, labels) of each batch, on the network's device.
        """

    @abstractmethod
    def chance(self, labels: Tensor) -> float:
        """The score (0..1) of a network that ignores the images, for the labels of N images."""

    @abstractmethod
    def is_at_chance(self, score: float, labels: Tensor) -> bool:
        """Whether a score is not significantly above chance, by a one-sided test at the 1 % level.

        Args:
            score: 0..1, on N images.
            labels: of the N images.
        """

    def standard_error(self, score: float, images: int) -> float:
        """The standard error of a score.

        Args:
            score: 0..1.
            images: number of images on which it was measured.

        Returns:
            The standard error, of the score's scale; NaN if unknown.
        """
        return float("nan")
