"""From a supernet to one network that is shipped: extract, calibrate, distil, calibrate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import Augmentation, ImageData, batch_indices, make_batch
from ofa.errors import RecipeError
from ofa.progress import Progress, silent
from ofa.supernet import Supernet
from ofa.training.evaluation import device_of, evaluate
from ofa.training.loop import scheduled_rate
from ofa.training.losses import training_loss
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.tables import check_range

__all__ = ["FineTuning", "SpecializeMetrics", "Specialized", "specialize"]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How one network is trained on.

    Attributes:
        learning_rate: of the first step; it falls to zero along a cosine.
        batch_size: images a step.
        momentum: of SGD with Nesterov's step.
        weight_decay: of convolution and linear weights.
        label_smoothing: share of a label that is spread over all classes.
        distillation_weight: of the teacher's soft targets; the labels weigh 1.
        augmentation: how training images are moved at random.

    Raises:
        RecipeError: an impossible value.
    """

    learning_rate: float = 0.02
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    distillation_weight: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, 2)
        for name in ("weight_decay", "distillation_weight"):
            check_range(name, getattr(self, name), 0)
        for name in ("momentum", "label_smoothing"):
            check_range(name, getattr(self, name), 0, 0.999)

    @classmethod
    def like(cls, recipe: Recipe) -> FineTuning:
        """What a supernet's recipe says of batches, regularization and augmentation."""
        return cls(
            batch_size=recipe.batch_size,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            label_smoothing=recipe.label_smoothing,
            augmentation=recipe.augmentation,
        )


@dataclass(frozen=True, kw_only=True)
class SpecializeMetrics:
    """What specialization did for a network, on images that it was not trained on.

    Attributes:
        accuracy_before: share (0..1) right as extracted from the supernet and calibrated.
        accuracy: share (0..1) right after fine-tuning and calibration.
        teacher_accuracy: share (0..1) that the supernet's largest network got right at the same resolution.
        epochs: of fine-tuning.
        duration_s: wall-clock seconds of all of it.
    """

    accuracy_before: float
    accuracy: float
    teacher_accuracy: float
    epochs: int
    duration_s: float


@dataclass(frozen=True, eq=False)
class Specialized:
    """A network with storage of its own, in evaluation mode, and how good it is."""

    network: nn.Module
    metrics: SpecializeMetrics


def specialize(
    supernet: Supernet,
    arch: Arch,
    train_data: ImageData,
    evaluation_data: ImageData,
    *,
    epochs: int,
    generator: torch.Generator,
    settings: FineTuning | None = None,
    progress: Progress = silent,
) -> Specialized:
    """Make the best network of one arch that a supernet and a few epochs can give.

    The subnet is extracted, calibrated, trained on with the supernet's largest network as its teacher, and calibrated again.
    The supernet stays as it is.

    Args:
        supernet: trained.
        arch: the network; a point of the supernet's space.
        train_data: to calibrate and train on.
        evaluation_data: other images, to tell accuracy on.
        epochs: passes over ``train_data``; 0 calibrates only.
        generator: order and augmentation of the images, on the CPU.
        settings: how the passes are made.
        progress: told of every epoch.

    Raises:
        ArchError: ``arch`` is not a point of the space.
        RecipeError: an impossible value, or a loss that is no longer finite.
    """
    started = time.perf_counter()
    resolution = arch.resolution
    network, teacher = (_calibrated(supernet, choice, train_data) for choice in (arch, supernet.space.largest(resolution)))
    before = evaluate(network, evaluation_data, resolution=resolution)
    teacher_accuracy = evaluate(teacher, evaluation_data, resolution=resolution)
    if epochs:
        tuning = _Tuning(network, teacher, train_data, resolution, settings or FineTuning(), generator)
        for epoch, loss in enumerate(tuning.epochs(epochs), start=1):
            progress(epoch, epochs, f"loss {loss:.3f}")
        calibrate(network, train_data, resolution=resolution)
        network.eval()
    return Specialized(
        network,
        SpecializeMetrics(
            accuracy_before=before,
            accuracy=evaluate(network, evaluation_data, resolution=resolution) if epochs else before,
            teacher_accuracy=teacher_accuracy,
            epochs=epochs,
            duration_s=time.perf_counter() - started,
        ),
    )


def _calibrated(supernet: Supernet, arch: Arch, data: ImageData) -> nn.Module:
    network = supernet.extract(arch)
    calibrate(network, data, resolution=arch.resolution)
    return network.eval()


@dataclass(eq=False)
class _Tuning:
    """The fine-tuning of one network beside its teacher."""

    network: nn.Module
    teacher: nn.Module
    data: ImageData
    resolution: int
    settings: FineTuning
    generator: torch.Generator

    def epochs(self, count: int) -> Iterator[float]:
        """Train, yielding each epoch's mean loss."""
        phase = Phase(name="fine-tuning", epochs=count, learning_rate=self.settings.learning_rate)
        optimizer = self.optimizer()
        self.network.train()
        for epoch in range(count):
            indices = batch_indices(len(self.data), self.settings.batch_size, self.generator, drop_last=True)
            losses = []
            for number, index in enumerate(indices):
                for group in optimizer.param_groups:
                    group["lr"] = scheduled_rate(phase, epoch * len(indices) + number, len(indices))
                losses.append(self.step(index, optimizer))
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise RecipeError(
                    f"the loss must stay finite, but became {mean} in epoch {epoch + 1} of fine-tuning at learning rate "
                    f"{self.settings.learning_rate:.3g}; lower it"
                )
            yield mean

    def optimizer(self) -> torch.optim.Optimizer:
        """Only the weights of convolutions and linear layers decay: they are the parameters of more than one dimension."""
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        momentum = self.settings.momentum
        return torch.optim.SGD(groups, lr=self.settings.learning_rate, momentum=momentum, nesterov=momentum > 0)

    def step(self, index: torch.Tensor, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """One step of the optimizer; returns its loss."""
        x_BCHW, y_B = make_batch(
            self.data,
            index,
            resolution=self.resolution,
            augmentation=self.settings.augmentation,
            generator=self.generator,
            device=device_of(self.network),
        )
        with torch.no_grad():
            targets = self.teacher(x_BCHW)
        optimizer.zero_grad()
        loss = training_loss(
            self.network(x_BCHW),
            y_B,
            label_smoothing=self.settings.label_smoothing,
            teacher_logits=targets,
            distillation_weight=self.settings.distillation_weight,
        )
        loss.backward()
        optimizer.step()
        return loss.detach()
