"""One training step: the mean gradient of several subnets, accumulated in place in the supernet's store.

Shapes: B images of a batch, C channels, H W pixels, S subnets, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ofa.arch import Arch
from ofa.supernet import Supernet
from ofa.tasks import CLASSIFICATION, Divergence, Task
from ofa.training.distributed import ALONE, World
from ofa.training.losses import training_loss
from ofa.training.prefixes import run_together
from ofa.training.recorded import Recorder

__all__ = ["PRECISIONS", "Objective", "Precision", "StepResult", "gradient_scaler", "training_step"]

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The training objective of a step's subnets.

    Attributes:
        task: the task.
        label_smoothing: share of a label that is spread over all classes.
        teacher: a network in evaluation mode that provides soft targets: for all subnets, or with ``in_place`` for the first one.
        teacher_is_own: whether the teacher is a user's own network, whose operations a CUDA graph may be unable to record.
        in_place: whether the first subnet provides the soft targets of the others, and itself learns from the labels.
        distillation_weight: weight of the soft targets; the labels have weight 1. Infinity leaves the labels out; for a subnet that
            teaches others, infinity counts as 1.
        divergence: divergence between the soft targets and a subnet's outputs.
        features_weight: weight of the distance between a subnet's and its teacher's features (inputs of the last block), where they have
            the same shape.
        last_block: name of the teacher's last block; empty if the teacher is not one of ofa's networks.
        dropout_first_only: whether only the first subnet has dropout in the classifier.
    """

    task: Task = CLASSIFICATION
    label_smoothing: float = 0.0
    teacher: nn.Module | None = None
    teacher_is_own: bool = False
    in_place: bool = False
    distillation_weight: float = 0.0
    divergence: Divergence = "kl"
    features_weight: float = 0.0
    last_block: str = ""
    dropout_first_only: bool = False


@dataclass(frozen=True)
class StepResult:
    """Results of a step, as tensors on the device.

    Attributes:
        losses: [S], the training loss of each subnet, including label smoothing and distillation.
        accuracy: scalar, the task's score (0..1), the mean over subnets.
        cross_entropy: scalar, the task's loss on the labels alone, the mean over subnets and images.
    """

    losses: Tensor
    accuracy: Tensor
    cross_entropy: Tensor

    @property
    def loss(self) -> Tensor:
        """The mean loss over the subnets, a scalar."""
        return self.losses.mean()


def training_step(
    supernet: Supernet,
    archs: Sequence[Arch],
    batch: tuple[Tensor, Tensor],
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    *,
    precision: Precision = "float32",
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float = 0.0,
    world: World = ALONE,
    recorder: Recorder | None = None,
) -> StepResult:
    """Take one optimizer step on the mean gradient of several subnets.

    Args:
        supernet: the supernet, in training mode.
        archs: the subnets, all of the batch's resolution. The first is the teacher of the others if the objective is ``in_place``.
        batch: normalized images, float32 [B, C, H, W], and the targets of the task.
        optimizer: optimizer of the supernet's parameters.
        objective: the training objective.
        precision: precision of the arithmetic; weights, gradients and batch-norm statistics stay float32.
        scaler: gradient scaler, which keeps small gradients of float16 from vanishing; None scales nothing.
        clip_norm: largest norm of the whole gradient; a longer gradient is scaled down. 0 is no limit.
        world: the processes whose gradients are averaged; each has its share of the batch.
        recorder: replays CUDA graphs; it must be the same for all steps of a training.

    Returns:
        Losses and scores, on the device.
    """
    x_BCHW, y_B = batch
    supernet.zero_grad()
    found: dict[int, tuple[Tensor, Tensor]] = {}
    with torch.autocast(x_BCHW.device.type, PRECISIONS[precision], enabled=precision != "float32"):
        taught = _taught(objective, x_BCHW, recorder)

        def finish(number: int, classifier: nn.Module, features: Tensor) -> Tensor:
            nonlocal taught
            _set_dropout(classifier, 0.0 if objective.dropout_first_only and number else supernet.dropout)
            logits = classifier(features)
            teaches = objective.in_place and number == 0
            loss = _loss(logits.float(), y_B, objective, taught.outputs, teaches=teaches)
            if objective.features_weight:
                loss = loss + objective.features_weight * _distance(features, taught.features)
            if teaches:
                # A copy, because a recorder writes the next subnet's features to the same memory.
                taught = _Taught(logits.detach().float(), features.detach().float().clone() if objective.features_weight else None)
            found[number] = loss.detach(), logits.detach().float()
            share = loss / len(archs)
            return share if scaler is None else scaler.scale(share)

        run = run_together if recorder is None else recorder.run_together
        run([supernet.pieces(arch) for arch in archs], x_BCHW, finish)
    world.average_(supernet.flat_gradient)
    _update(optimizer, scaler, clip_norm)
    losses, answers = zip(*(found[number] for number in range(len(archs))), strict=True)
    answers_SBK, task = torch.stack(answers), objective.task
    # One loss over all subnets costs one small kernel per step instead of one per subnet.
    repeated = y_B.expand(len(answers_SBK), *y_B.shape).flatten(0, 1)
    return StepResult(torch.stack(losses), task.score(answers_SBK, y_B).mean(), task.loss(answers_SBK.flatten(0, 1), repeated))


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    """A gradient scaler for float16; None for other precisions, whose range of exponents needs none."""
    return torch.amp.GradScaler(device.type) if precision == "float16" else None


class _Taught(NamedTuple):
    """A teacher's outputs on a batch, and its features (inputs of its last block)."""

    outputs: Tensor | None = None
    features: Tensor | None = None


def _taught(objective: Objective, x_BCHW: Tensor, recorder: Recorder | None) -> _Taught:
    teacher = objective.teacher
    if teacher is None or objective.distillation_weight == 0:
        return _Taught()
    if objective.features_weight and objective.last_block:
        return _answer_with_features(teacher, objective.last_block, x_BCHW)
    if recorder is not None and not objective.teacher_is_own:
        return _Taught(recorder.answer(teacher, x_BCHW).float())
    with torch.no_grad():
        logits: Tensor = teacher(x_BCHW)
    return _Taught(logits.float())


@torch.no_grad()
def _answer_with_features(teacher: nn.Module, last_block: str, x_BCHW: Tensor) -> _Taught:
    seen: list[Tensor] = []
    handle = teacher.get_submodule(last_block).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits: Tensor = teacher(x_BCHW)
    finally:
        handle.remove()
    return _Taught(logits.float(), seen[0].float())


def _distance(features: Tensor, wanted: Tensor | None) -> Tensor | float:
    """The mean squared difference relative to the mean square of ``wanted``; 0 where the shapes differ."""
    if wanted is None or wanted.shape != features.shape:
        return 0.0
    return nn.functional.mse_loss(features.float(), wanted) / wanted.square().mean()


def _loss(logits: Tensor, y_B: Tensor, objective: Objective, targets: Tensor | None, *, teaches: bool) -> Tensor:
    weight = objective.distillation_weight
    return training_loss(
        logits,
        y_B,
        task=objective.task,
        label_smoothing=objective.label_smoothing,
        teacher_outputs=targets,
        distillation_weight=0.0 if targets is None else 1.0 if teaches and math.isinf(weight) else weight,
        divergence=objective.divergence,
    )


def _set_dropout(network: nn.Module, share: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def _update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None, clip_norm: float) -> None:
    if scaler is not None:
        scaler.unscale_(optimizer)
    if clip_norm > 0:
        nn.utils.clip_grad_norm_([each for group in optimizer.param_groups for each in group["params"]], clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
