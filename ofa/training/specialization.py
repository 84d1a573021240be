"""From a supernet to one network that is shipped: extract, calibrate, distil, calibrate."""

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
    """What specialization did for a network, on images that it was not trained on.

    Attributes:
        accuracy_before: the task's score (0..1) as extracted from the supernet and calibrated.
        accuracy: the score after fine-tuning and calibration.
        teacher_accuracy: the teacher's score on images of the same resolution: the supernet's largest network, or one of the user's own.
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
    teacher: nn.Module | None = None,
    progress: Progress = silent,
    steps: Steps = UNKEPT,
    state: TrainingState | None = None,
    on_state: Callable[[TrainingState], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Specialized:
    """Make the best network of one arch that a supernet and a few epochs can give.

    The subnet is extracted, calibrated, trained on with a teacher, and calibrated again. The supernet stays as it is.

    Args:
        supernet: trained.
        arch: the network; a point of the supernet's space.
        train_data: to calibrate and train on.
        evaluation_data: other images, to tell accuracy on.
        epochs: passes over ``train_data``; 0 calibrates only.
        generator: order and augmentation of the images, on the CPU.
        settings: how the passes are made.
        teacher: in evaluation mode where the supernet lies, and ready for these images (``ofa.teachers``); None is the supernet's largest
            network, calibrated.
        progress: told of every epoch.
        steps: keeps the accuracies that are measured.
        state: where fine-tuning goes on, by the same arguments; None begins.
        on_state: given the state now and then, as by ``ofa.training.single.train_network``.
        stop: asked after every step of fine-tuning.

    Raises:
        KeyboardInterrupt: ``stop`` said yes, and ``on_state`` was given the state.
        FileError: ``steps`` are of other inputs.
        ArchError: ``arch`` is not a point of the space.
        DataError: the supernet has another number of outputs than the data has classes, or the labels are of another kind than the task.
        RecipeError: an impossible value, or a loss that is no longer finite.
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
    """The arguments of ``specialize`` by which a journal keeps its steps, and states beside it, which go when the block ends well.

    Args:
        journal: entered by the caller; None keeps nothing.
        stop: asked after every step of fine-tuning.
        on_note: told in a sentence of a state that is damaged.
    """
    if journal is None:
        yield {"stop": stop}
        return
    states, throttle = States(journal.path.with_suffix(".states"), SingleValues), Throttle()
    if not journal.found:
        states.forget()  # of work that was given up
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
