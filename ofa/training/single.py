"""Training of a single network, with or without a teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ofa.data import Augmentation, BatchPlan, Images, batch_indices, default_workers, load_batches
from ofa.errors import RecipeError, WeightsError, nearest
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.tasks import CLASSIFICATION, Task
from ofa.training.evaluation import device_of
from ofa.training.losses import training_loss
from ofa.training.optimizer import SGD, Optimizer, optimizer_state, restore_optimizer
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.schedule import scheduled_rate
from ofa.training.state import StatePace, TrainingState, part_of
from ofa.training.step import PRECISIONS, Precision, gradient_scaler
from ofa.training.toml import check_range

__all__ = ["FineTuning", "SingleValues", "train_network"]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Settings for the training of a single network.

    Attributes:
        learning_rate: learning rate at the end of the warm-up; from there it falls to zero (cosine annealing).
        warmup_epochs: epochs, or part of one, in which the learning rate rises linearly from zero.
        batch_size: images per step.
        optimizer: settings of the optimizer.
        task: the network's task.
        label_smoothing: share of a label that is spread over all classes.
        distillation_weight: weight of the teacher's soft targets; the labels have weight 1.
        augmentation: random augmentation of training images.
        precision: precision of the arithmetic: ``float32``, ``bfloat16`` or ``float16`` (with scaled gradients); weights stay float32.

    Raises:
        RecipeError: an impossible value.
    """

    learning_rate: float = 0.02
    warmup_epochs: float = 0.0
    batch_size: int = 64
    optimizer: Optimizer = field(default_factory=SGD)
    task: Task = CLASSIFICATION
    label_smoothing: float = 0.1
    distillation_weight: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, 2)
        for name in ("distillation_weight", "warmup_epochs"):
            check_range(name, getattr(self, name), 0)
        check_range("label_smoothing", self.label_smoothing, 0, 0.999)
        if self.precision not in PRECISIONS:
            raise RecipeError(f"precision must be a known one, but is '{self.precision}'; {nearest(self.precision, PRECISIONS)}")

    @classmethod
    def like(cls, recipe: Recipe, *, learning_rate: float = 0.02) -> FineTuning:
        """Settings with the task, batch size, optimizer, label smoothing, augmentation and precision of a supernet's recipe."""
        return cls(
            learning_rate=learning_rate,
            batch_size=recipe.batch_size,
            optimizer=recipe.optimizer,
            task=recipe.get_task(),
            label_smoothing=recipe.label_smoothing,
            augmentation=recipe.augmentation,
            precision=recipe.precision,
        )


def train_network(
    network: nn.Module,
    data: Images,
    *,
    resolution: Resolution,
    epochs: int,
    generator: torch.Generator,
    settings: FineTuning,
    teacher: nn.Module | None = None,
    state: TrainingState | None = None,
    progress: Progress = silent,
    on_state: Callable[[TrainingState], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Train one network in place; it is left in training mode. Resumed from a state, it ends as if it had never stopped.

    Args:
        network: maps [B, C, H, W] to [B, classes]; it is trained on its own device.
        data: the images to train on.
        resolution: height and width of the input in pixels.
        epochs: passes over the data, at least 1.
        generator: random generator for order and augmentation of the images, on the CPU.
        settings: training settings.
        teacher: provides soft targets, in evaluation mode; None trains on the labels alone.
        state: the state to resume from, with the same arguments; None starts anew.
        progress: told of every epoch.
        on_state: called with the state to save, after every epoch and every ``SECONDS_BETWEEN_STATES`` seconds of ``clock``.
        stop: asked after every step. Once it returns true, ``on_state`` is called with the state and training returns.
        clock: returns seconds; it times the states.

    Returns:
        Whether training has ended; false if it was stopped.

    Raises:
        RecipeError: an impossible value, or the loss is no longer finite.
        WeightsError: the state is of another network or precision.
    """
    phase = Phase(name="network", epochs=epochs, learning_rate=settings.learning_rate, warmup_epochs=settings.warmup_epochs)
    optimizer = _optimizer(network, settings)
    scaler = gradient_scaler(settings.precision, device_of(network))
    network.train()
    begun, done = 0, 0
    if state is not None:
        begun, done = _restore(state, network, optimizer, scaler, generator)
    pace = StatePace(clock)
    for epoch in range(begun, epochs):
        drawn_from = generator.get_state()
        indices = batch_indices(len(data), settings.batch_size, generator, drop_last=True)
        seeds = torch.randint(2**63 - 1, (len(indices),), generator=generator).tolist()
        plans = [BatchPlan(index, resolution, seed) for index, seed in zip(indices, seeds, strict=True)]
        rest, done = plans[done:], 0
        loader = load_batches(data, rest, augmentation=settings.augmentation, device=device_of(network), workers=default_workers(data))
        losses: list[torch.Tensor] = []
        stopped = False
        for number, batch in enumerate(loader, start=len(plans) - len(rest)):
            for group in optimizer.param_groups:
                group["lr"] = scheduled_rate(phase, epoch * len(plans) + number, len(plans))
            losses.append(_step(network, batch, optimizer, scaler, settings, teacher))
            stopped = stop()
            if number + 1 == len(plans) or not (stopped or pace.would_be_late()):
                continue
            _mean(losses, f"epoch {epoch + 1} of {epochs}", settings)
            if on_state is not None:
                within = {"epoch": epoch, "done": number + 1, "ended": False}
                on_state(_capture(epoch * len(plans) + number + 1, within, network, optimizer, scaler, drawn_from))
                pace.told()
            if stopped:
                return False
        mean = _mean(losses, f"epoch {epoch + 1} of {epochs}", settings)
        if on_state is not None:
            within = {"epoch": epoch + 1, "done": 0, "ended": epoch + 1 == epochs}
            on_state(_capture((epoch + 1) * len(plans), within, network, optimizer, scaler, generator.get_state()))
            pace.told()
        progress(epoch + 1, epochs, f"loss {mean:.3f}")
        if stopped and epoch + 1 < epochs:
            return False
    return True


def _mean(losses: list[torch.Tensor], when: str, settings: FineTuning) -> float:
    """The mean of an epoch's losses so far, which must be finite."""
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise RecipeError(f"the loss must stay finite, but became {mean} in {when} at learning rate {settings.learning_rate:.3g}; lower it")
    return mean


@dataclass(frozen=True, kw_only=True)
class SingleValues:
    """Values of a state beside its tensors.

    Attributes:
        epoch: number of epochs that have ended.
        done: steps done in the current epoch.
        ended: whether training has ended.
        optimizer: the optimizer's JSON values.
        scaler: state of the gradient scaler; None without one.
    """

    epoch: int
    done: int
    ended: bool
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any] | None = None


def _capture(
    step: int,
    within: dict[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    drawn_from: torch.Tensor,
) -> TrainingState:
    """A copy of the full training state; ``drawn_from`` is the generator's state at the beginning of the current epoch."""
    found, settings = optimizer_state(optimizer)
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in found.items()}
    tensors["generator"] = drawn_from
    values = {**within, "scaler": scaler.state_dict() if scaler else None, "optimizer": settings}
    return TrainingState(step, {name: tensor.detach().clone() for name, tensor in tensors.items()}, values)


def _restore(
    state: TrainingState,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    generator: torch.Generator,
) -> tuple[int, int]:
    """Restore a state; returns the number of epochs that have ended and the steps done in the current epoch."""
    try:
        network.load_state_dict(part_of(state.tensors, "network"))
        restore_optimizer(optimizer, part_of(state.tensors, "optimizer"), state.values["optimizer"])
        generator.set_state(state.tensors["generator"].cpu())
        if scaler is not None:
            scaler.load_state_dict(state.values["scaler"])
        return int(state.values["epoch"]), int(state.values["done"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"a state must be of its network and precision, but {' '.join(str(error).split())}; resume with the arguments that made it"
        ) from error


def _optimizer(network: nn.Module, settings: FineTuning) -> torch.optim.Optimizer:
    """Make the optimizer. Weight decay applies only to parameters of more than one dimension: convolution and linear weights."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return settings.optimizer.make(groups, settings.learning_rate)


def _step(
    network: nn.Module,
    batch: tuple[torch.Tensor, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    settings: FineTuning,
    teacher: nn.Module | None,
) -> torch.Tensor:
    """One step of the optimizer; returns its loss."""
    x_BCHW, y_B = batch
    optimizer.zero_grad()
    with torch.autocast(x_BCHW.device.type, PRECISIONS[settings.precision], enabled=settings.precision != "float32"):
        targets = None
        if teacher is not None and settings.distillation_weight > 0:
            with torch.no_grad():
                targets = teacher(x_BCHW).float()
        logits = network(x_BCHW).float()
    loss = training_loss(
        logits,
        y_B,
        task=settings.task,
        label_smoothing=settings.label_smoothing,
        teacher_outputs=targets,
        distillation_weight=settings.distillation_weight,
    )
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return loss.detach()
