"""Specialization of one network for deployment: extract it from a supernet, calibrate, distil, calibrate again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import Images
from ofa.journal import UNKEPT, Journal, Steps, digest_of
from ofa.progress import Progress, silent
from ofa.schema import to_json
from ofa.supernet import Supernet
from ofa.training.evaluation import check_data, device_of, digest_of_images, digest_of_labels, digest_of_tensors, evaluate
from ofa.training.single import FineTuning, SingleValues, train_network
from ofa.training.state import Throttle, TrainingState
from ofa.training.states import States

__all__ = ["FineTuning", "SpecializeMetrics", "Specialized", "kept_by", "specialize"]


@dataclass(frozen=True, kw_only=True)
class SpecializeMetrics:
    """Scores of a network before and after specialization, on images that it was not trained on.

    Attributes:
        accuracy_before: the task's score (0..1) after extraction from the supernet and calibration.
        accuracy: the score (0..1) after fine-tuning and calibration.
        teacher_accuracy: score (0..1) of the teacher (the supernet's largest network, or the user's own) at the same resolution.
        epochs: epochs of fine-tuning.
        duration_s: wall-clock seconds in total.
    """

    accuracy_before: float
    accuracy: float
    teacher_accuracy: float
    epochs: int
    duration_s: float


@dataclass(frozen=True, eq=False)
class Specialized:
    """A specialized network.

    Attributes:
        network: the network, with storage of its own, in evaluation mode.
        metrics: its scores.
    """

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
    teacher: nn.Module | None = None,
    progress: Progress = silent,
    steps: Steps = UNKEPT,
    state: TrainingState | None = None,
    on_state: Callable[[TrainingState], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Specialized:
    """Extract one network from a supernet, and fine-tune it.

    The subnet is extracted, calibrated, fine-tuned with a teacher, and calibrated again. The supernet is not changed.

    Args:
        supernet: a trained supernet.
        arch: the network, a point of the supernet's space.
        train_data: images to calibrate and train on.
        evaluation_data: other images, on which the scores are measured.
        epochs: passes over ``train_data``; 0 only calibrates.
        generator: random generator for order and augmentation of the images, on the CPU.
        settings: training settings; None is the defaults.
        teacher: the teacher, in evaluation mode, on the supernet's device and prepared for these images (``ofa.teachers``); None is the
            supernet's largest network, calibrated.
        progress: told of every epoch.
        steps: keeps measured scores, so that resumed work does not measure them again.
        state: the state to resume fine-tuning from, with the same arguments; None starts anew.
        on_state: called with the state to save, as by ``ofa.training.single.train_network``.
        stop: asked after every step of fine-tuning.

    Returns:
        The network and its scores.

    Raises:
        KeyboardInterrupt: ``stop`` returned true; ``on_state`` has been called with the state.
        FileError: ``steps`` belong to other inputs.
        ArchError: ``arch`` is not a point of the space.
        DataError: the supernet's outputs are not as many as the data's classes, or the labels do not suit the task.
        RecipeError: an impossible value, or the loss is no longer finite.
    """
    settings = settings or FineTuning()
    task = settings.task
    for data in (train_data, evaluation_data):
        check_data(task, supernet.space.num_classes, data)
    started = time.perf_counter()
    steps.begin(
        {
            "weights": digest_of_tensors(supernet.state_dict()),
            "images": digest_of_images(train_data, evaluation_data),
            "labels": digest_of_labels(train_data, evaluation_data),
            "network": arch.to_json(),
            "epochs": epochs,
            "settings": {**to_json(settings), "task": task.name},
            "random numbers": digest_of(generator.get_state().numpy().tobytes()),
            "on": device_of(supernet).type,
            **({} if teacher is None else {"teacher": digest_of_tensors(dict(teacher.named_parameters()))}),
        }
    )
    resolution = arch.resolution
    network = _calibrated(supernet, arch, train_data)
    teacher = teacher or _calibrated(supernet, supernet.space.largest(resolution), train_data)
    score = partial(evaluate, data=evaluation_data, resolution=resolution, task=task)
    before = steps.once("accuracy as extracted", partial(score, network), float)
    teacher_accuracy = steps.once("accuracy of the teacher", partial(score, teacher), float)
    if stop():
        raise KeyboardInterrupt
    if epochs:
        ended = train_network(
            network,
            train_data,
            resolution=resolution,
            epochs=epochs,
            generator=generator,
            settings=settings,
            teacher=teacher,
            state=state,
            progress=progress,
            on_state=on_state,
            stop=stop,
        )
        if not ended:
            raise KeyboardInterrupt
        calibrate(network, train_data, resolution=resolution)
        network.eval()
    return Specialized(
        network,
        SpecializeMetrics(
            accuracy_before=before,
            accuracy=score(network) if epochs else before,
            teacher_accuracy=teacher_accuracy,
            epochs=epochs,
            duration_s=time.perf_counter() - started,
        ),
    )


@contextmanager
def kept_by(journal: Journal | None, stop: Callable[[], bool], on_note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Arguments for ``specialize`` that keep its steps in a journal and its states beside the journal.

    The states are removed when the block ends without an exception.

    Args:
        journal: the journal, entered by the caller; None keeps nothing.
        stop: asked after every step of fine-tuning.
        on_note: called with a sentence about a damaged state.
    """
    if journal is None:
        yield {"stop": stop}
        return
    states, throttle = States(journal.path.with_suffix(".states"), SingleValues), Throttle()
    if not journal.found:
        states.forget()  # states of abandoned work
    found = states.last(remove=True, on_note=on_note)

    def keep(state: TrainingState) -> None:
        if throttle.is_due(always=stop() or state.values["ended"]):
            states.keep(state, {})

    yield {"stop": stop, "steps": journal, "state": None if found is None else found[0], "on_state": keep}
    states.forget()


def _calibrated(supernet: Supernet, arch: Arch, data: Images) -> nn.Module:
    network = supernet.extract(arch)
    calibrate(network, data, resolution=arch.resolution)
    return network.eval()
