"""From a supernet to one network that is shipped: extract, calibrate, distil, calibrate."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import Images
from ofa.progress import Progress, silent
from ofa.supernet import Supernet
from ofa.training.evaluation import check_data, evaluate
from ofa.training.single import FineTuning, train_network

__all__ = ["FineTuning", "SpecializeMetrics", "Specialized", "specialize"]


@dataclass(frozen=True, kw_only=True)
class SpecializeMetrics:
    """What specialization did for a network, on images that it was not trained on.

    Attributes:
        accuracy_before: the task's score (0..1) as extracted from the supernet and calibrated.
        accuracy: the score after fine-tuning and calibration.
        teacher_accuracy: the score of the supernet's largest network at the same resolution.
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
    train_data: Images,
    evaluation_data: Images,
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
        DataError: the supernet has another number of outputs than the data has classes, or the labels are of another kind than the task.
        RecipeError: an impossible value, or a loss that is no longer finite.
    """
    settings = settings or FineTuning()
    task = settings.task
    for data in (train_data, evaluation_data):
        check_data(task, supernet.space.num_classes, data)
    started = time.perf_counter()
    resolution = arch.resolution
    network, teacher = (_calibrated(supernet, choice, train_data) for choice in (arch, supernet.space.largest(resolution)))
    before = evaluate(network, evaluation_data, resolution=resolution, task=task)
    teacher_accuracy = evaluate(teacher, evaluation_data, resolution=resolution, task=task)
    if epochs:
        train_network(
            network,
            train_data,
            resolution=resolution,
            epochs=epochs,
            generator=generator,
            settings=settings,
            teacher=teacher,
            progress=progress,
        )
        calibrate(network, train_data, resolution=resolution)
        network.eval()
    return Specialized(
        network,
        SpecializeMetrics(
            accuracy_before=before,
            accuracy=evaluate(network, evaluation_data, resolution=resolution, task=task) if epochs else before,
            teacher_accuracy=teacher_accuracy,
            epochs=epochs,
            duration_s=time.perf_counter() - started,
        ),
    )


def _calibrated(supernet: Supernet, arch: Arch, data: Images) -> nn.Module:
    network = supernet.extract(arch)
    calibrate(network, data, resolution=arch.resolution)
    return network.eval()
