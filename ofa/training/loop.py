"""The training of a supernet: phases, epochs, steps.

Shapes: B images of a batch, C channels, H W pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ofa.arch import Arch
from ofa.data import ImageData, batch_indices, make_batch
from ofa.errors import DataError, RecipeError
from ofa.progress import Progress, silent
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.evaluation import device_of
from ofa.training.losses import training_loss
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import Sampler, uniform

__all__ = ["EpochMetrics", "StepResult", "scheduled_rate", "train", "training_step"]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one epoch came to.

    Attributes:
        phase: name of the phase.
        epoch: counted from 1 within the phase.
        epochs: of the phase.
        loss: mean over all steps and subnets.
        accuracy: share (0..1) of training images, augmented, that the sampled subnets got right in training mode.
        learning_rate: of the epoch's last step.
        images_per_s: training images a second, however many subnets saw each.
        duration_s: wall-clock seconds.
    """

    phase: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    learning_rate: float
    images_per_s: float
    duration_s: float


@dataclass(frozen=True)
class StepResult:
    """One step's mean loss over its subnets, and the share of images (0..1) that they got right; scalars on the device."""

    loss: Tensor
    accuracy: Tensor


def train(
    supernet: Supernet,
    recipe: Recipe,
    data: ImageData,
    *,
    generator: torch.Generator,
    rng: np.random.Generator,
    progress: Progress = silent,
    on_metrics: Callable[[EpochMetrics], None] | None = None,
    sampler: Sampler = uniform,
) -> list[EpochMetrics]:
    """Train ``supernet`` in place by the phases of ``recipe``.

    The teacher of the phases that distil is a copy of the largest network, taken when the first of them begins.

    Args:
        supernet: of the recipe's space; where it lies, training happens.
        recipe: what to do.
        data: the images to train on.
        generator: order and augmentation of the images, on the CPU.
        rng: resolutions and subnets.
        progress: told of every step.
        on_metrics: given each epoch's metrics as they arise.
        sampler: chooses the subnets.

    Returns:
        The metrics of every epoch.

    Raises:
        DataError: the data has another number of classes than the supernet.
        RecipeError: a phase beyond the space, or a loss that is no longer finite.
    """
    if data.num_classes != supernet.space.num_classes:
        raise DataError(
            f"the supernet must have one output a class, but it has {supernet.space.num_classes} and the data has "
            f"{data.num_classes} classes; build it with the recipe's build_supernet({data.num_classes})"
        )
    run = _Run(supernet, recipe, data, generator, rng, progress, sampler)
    metrics = []
    was_training = supernet.training
    supernet.train()
    try:
        for phase in recipe.phases:
            for epoch in run.epochs(phase):
                metrics.append(epoch)
                if on_metrics is not None:
                    on_metrics(epoch)
    finally:
        supernet.train(was_training)
    return metrics


def scheduled_rate(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """The rate at a step of a phase, counted from 0: a linear rise to ``phase.learning_rate``, then a cosine towards zero."""
    warmup, total = phase.warmup_epochs * steps_per_epoch, phase.epochs * steps_per_epoch
    if step < warmup:
        return phase.learning_rate * (step + 1) / (warmup + 1)
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def training_step(
    supernet: Supernet,
    archs: Sequence[Arch],
    batch: tuple[Tensor, Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    label_smoothing: float,
    teacher: nn.Module | None = None,
    distillation_weight: float = 0.0,
) -> StepResult:
    """One step on the mean gradient of several subnets, each accumulated in place in the supernet's store.

    Args:
        supernet: in training mode.
        archs: the subnets; all of the batch's resolution.
        batch: normalized float32 [B, C, H, W] and int64 [B].
        optimizer: of the supernet's parameters.
        label_smoothing: share of a label that is spread over all classes.
        teacher: in evaluation mode; gives soft targets.
        distillation_weight: of the soft targets.
    """
    x_BCHW, y_B = batch
    supernet.zero_grad()
    targets = None
    if teacher is not None and distillation_weight > 0:
        with torch.no_grad():
            targets = teacher(x_BCHW)
    losses, hits = [], []
    for arch in archs:
        logits = supernet.subnet(arch)(x_BCHW)
        loss = training_loss(
            logits, y_B, label_smoothing=label_smoothing, teacher_logits=targets, distillation_weight=distillation_weight
        ) / len(archs)
        loss.backward()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(1) == y_B).float().mean())
    optimizer.step()
    return StepResult(torch.stack(losses).sum(), torch.stack(hits).mean())


@dataclass(eq=False)
class _Run:
    """A training run and where it stands."""

    supernet: Supernet
    recipe: Recipe
    data: ImageData
    generator: torch.Generator
    rng: np.random.Generator
    progress: Progress
    sampler: Sampler
    teacher: nn.Module | None = None
    trained: Space | None = None
    steps_done: int = 0

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(len(self.data), self.recipe.batch_size)
        return full or min(rest, 1)

    @property
    def steps_total(self) -> int:
        return self.steps_per_epoch * sum(phase.epochs for phase in self.recipe.phases)

    def epochs(self, phase: Phase) -> Iterator[EpochMetrics]:
        """Train one phase, an epoch at a time."""
        space = self._begin(phase)
        spaces = {resolution: space.restrict(resolution=(resolution,)) for resolution in space.resolutions}
        optimizer = torch.optim.SGD(
            self.supernet.parameter_groups(self.recipe.weight_decay),
            lr=phase.learning_rate,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.momentum > 0,
        )
        for epoch in range(phase.epochs):
            yield self._epoch(phase, epoch, spaces, optimizer)
        self.trained = space

    def _begin(self, phase: Phase) -> Space:
        """Make ready what a phase builds on: the order of the channels and the teacher."""
        space = phase.restrict(self.supernet.space)
        if phase.reorder_channels:
            largest_alone = Phase(name="largest", epochs=1, learning_rate=1).restrict(self.supernet.space)
            self.supernet.reorder_channels(trained=self.trained or largest_alone)
        if phase.distillation_weight > 0 and self.teacher is None:
            self.teacher = self.supernet.extract(self.supernet.space.largest()).eval().requires_grad_(False)
        return space

    def _epoch(self, phase: Phase, epoch: int, spaces: dict[int, Space], optimizer: torch.optim.Optimizer) -> EpochMetrics:
        started = time.perf_counter()
        loss, accuracy, rate = 0.0, 0.0, 0.0
        indices = batch_indices(len(self.data), self.recipe.batch_size, self.generator, drop_last=True)
        for number, index in enumerate(indices):
            step = epoch * len(indices) + number
            rate = scheduled_rate(phase, step, len(indices))
            for group in optimizer.param_groups:
                group["lr"] = rate
            result = self._step(phase, index, spaces, optimizer)
            latest = float(result.loss)
            if not math.isfinite(latest):
                raise RecipeError(
                    f"the loss must stay finite, but became {latest} in phase {phase.name}, epoch {epoch + 1}, step {number + 1} at "
                    f"learning rate {rate:.3g}; lower phases.{phase.name}.learning_rate or lengthen its warmup_epochs"
                )
            loss, accuracy = loss + latest, accuracy + float(result.accuracy)
            self.steps_done += 1
            self.progress(self.steps_done, self.steps_total, f"{phase.name} {epoch + 1}/{phase.epochs}, loss {latest:.3f}")
        duration = time.perf_counter() - started
        return EpochMetrics(
            phase=phase.name,
            epoch=epoch + 1,
            epochs=phase.epochs,
            loss=loss / len(indices),
            accuracy=accuracy / len(indices),
            learning_rate=rate,
            images_per_s=sum(map(len, indices)) / duration,
            duration_s=duration,
        )

    def _step(self, phase: Phase, index: Tensor, spaces: dict[int, Space], optimizer: torch.optim.Optimizer) -> StepResult:
        """Draw a resolution and subnets, and take one step."""
        resolution = list(spaces)[int(self.rng.integers(len(spaces)))]
        archs = self.sampler(spaces[resolution], phase.subnets_per_step, self.rng)
        batch = make_batch(
            self.data,
            index,
            resolution=resolution,
            augmentation=self.recipe.augmentation,
            generator=self.generator,
            device=device_of(self.supernet),
        )
        return training_step(
            self.supernet,
            archs,
            batch,
            optimizer,
            label_smoothing=self.recipe.label_smoothing,
            teacher=self.teacher if phase.distillation_weight > 0 else None,
            distillation_weight=phase.distillation_weight,
        )
