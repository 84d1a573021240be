"""The Python API, second half: specialize, export and verify a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import ofa.training.specialization as specialization
from devices import Device
from ofa.arch import Arch
from ofa.data import Images, Splits
from ofa.errors import ExportError
from ofa.exporting.bundle import Bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.layout import FLOAT
from ofa.exporting.precision import PRECISIONS
from ofa.exporting.quantization.choosing import MOST_LOSS
from ofa.exporting.quantization.tuning import EPOCHS, tuning_on
from ofa.exporting.targets import Target, write_target
from ofa.journal import Journal
from ofa.locking import writing
from ofa.opsets import OPSET
from ofa.outputs import check_output, check_output_folder
from ofa.progress import Progress, silent
from ofa.schema import to_json
from ofa.teachers import FoundTeacher, find_teacher
from ofa.training import Run, RunData
from ofa.training.evaluation import device_of
from search.front.candidate import Candidate
from search.front.front import Front
from search.front.promise import promise_of
from search.verification.bundle import verify_bundle
from search.verification.verdict import Verification

__all__ = ["export", "in_precision", "precision_of", "specialize", "verify"]

_REMEDY = "name another path, or pass overwrite=True"


def specialize(
    run: Run,
    network: Arch | Candidate,
    folder: str | os.PathLike[str],
    *,
    front: Front | None = None,
    device: str | None = None,
    epochs: int = 5,
    teacher: FoundTeacher | str = "",
    seed: int = 0,
    data: RunData | None = None,
    precision: str | None = None,
    most_loss: float = MOST_LOSS,
    overwrite: bool = False,
    progress: Progress = silent,
    journal: Journal | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_note: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Extract a network from a run, calibrate its batch norms, fine-tune it with distillation, and write it as a bundle.

    Args:
        run: the supernet, which computes on its current device, and its recipe.
        network: an arch, or a network of a front, whose predicted accuracy and costs go on the bundle's card.
        folder: the bundle to write; its parent folder must exist.
        front: the front of the network.
        device: the device of the front whose latency goes on the card; None for the first.
        epochs: of fine-tuning; 0 for calibration only.
        teacher: an external teacher, as an argument or result of ``ofa.teachers.find_teacher``; empty for the run's largest network.
        seed: of the order and augmentation of images.
        data: the run's images, if already loaded.
        precision: precision of an additional file of the network; None for the precision of the front's network. int8 is calibrated and
            evaluated on the run's held-out images; if it loses too much, its weights are tuned on the training images.
        most_loss: largest loss of score by int8, as a fraction.
        overwrite: whether an existing bundle may be replaced.
        progress: called after every epoch and every trial of quantization.
        journal: stores measurements and, beside them, checkpoints of fine-tuning; the caller has entered it. None stores nothing.
        stop: called after every step of fine-tuning; True interrupts it.
        on_note: called with a sentence if a stored checkpoint is damaged.

    Returns:
        The bundle. Its card has the accuracy on the test part; ``provenance`` has the accuracy before fine-tuning and the teacher's.

    Raises:
        OfaError: the arch is of another space; the images, the teacher or the folder cannot be used; or the export fails. If int8 loses
            too much, the bundle has been written in float32.
        KeyboardInterrupt: ``stop`` returned True.
    """
    with writing(folder, "specializing a network"), specialization.kept_by(journal, stop, on_note) as kept:
        check_output_folder(Path(folder), overwrite=overwrite, remedy=_REMEDY)
        arch = network.arch if isinstance(network, Candidate) else network
        run.supernet.space.check(arch)
        own = find_teacher(teacher) if isinstance(teacher, str) else teacher
        found = data or run.load_data()
        splits, place = found.splits, device_of(run.supernet)
        made = specialization.specialize(
            run.supernet,
            arch,
            splits.train,
            splits.test,
            epochs=epochs,
            generator=torch.Generator().manual_seed(seed),
            settings=specialization.FineTuning.like(run.recipe),
            teacher=None if own is None else own.prepared(splits.train, [arch.resolution], place),
            progress=progress,
            **kept,
        )
        provenance = {
            "run": str(run.folder),
            **found.provenance(run.recipe),
            **({"start": to_json(run.recipe.start)} if run.recipe.start else {}),
            **({"teacher": own.name} if own else {}),
            "recipe_seed": run.recipe.seed,
            "seed": seed,
            "test_images": len(splits.test),
            **asdict(made.metrics),
        }
        promised, opset = promise_of(network, front, device)
        mean, std = splits.train.normalization
        bundle = write_bundle(
            folder,
            made.network.cpu(),
            arch,
            Card(accuracy=made.metrics.accuracy, metric=run.recipe.get_task().metric, provenance=provenance, **promised),
            space=run.supernet.space,
            class_names=splits.train.class_names,
            mean=mean,
            std=std,
            rule=splits.train.rule,
            task=run.recipe.get_task(),
            generator=torch.Generator().manual_seed(seed),
            opset=opset,
        )
        return in_precision(bundle, splits, precision or precision_of(network), most_loss=most_loss, seed=seed, progress=progress)


def precision_of(network: Arch | Candidate) -> str:
    """The precision of a front's network; float32 for an arch."""
    return (network.precision if isinstance(network, Candidate) else None) or FLOAT


def in_precision(
    bundle: Bundle, splits: Splits, precision: str, *, most_loss: float = MOST_LOSS, seed: int = 0, progress: Progress = silent
) -> Bundle:
    """Add a file in another precision to a bundle.

    Args:
        bundle: of the network.
        splits: the run's images. int8 is calibrated and evaluated on the selection part; if it loses too much, it is tuned on the
            training part.
        precision: of the file; if the bundle has such a file, nothing is written.
        most_loss: largest loss of score by int8, as a fraction.
        seed: of the order of images while tuning.
        progress: called after every trial of quantization.

    Returns:
        The bundle with its updated card.

    Raises:
        ExportError: the network loses too much even after tuning, or cannot be written in this precision.
    """
    if bundle.file(precision).is_file():
        return bundle
    fitted = PRECISIONS.get(precision).is_of_data
    data, tuning_data = (splits.selection, splits.train) if fitted else (None, None)
    try:
        export(bundle, "onnx", precision=precision, data=data, most_loss=most_loss, tuning_data=tuning_data, seed=seed, progress=progress)
    except ExportError as error:
        raise ExportError(f"{error}; the bundle '{bundle.folder}' was written in fp32") from error
    return replace(bundle, card=bundle.card_now())


def export(
    bundle: Bundle,
    to: Target,
    path: str | os.PathLike[str] | None = None,
    *,
    batch: int | None = None,
    opset: int = OPSET,
    gpus: Sequence[str] = (),
    precision: str = "fp32",
    data: Images | None = None,
    most_loss: float = MOST_LOSS,
    tuning_data: Images | None = None,
    tune_epochs: int = EPOCHS,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write a bundle's network for a runtime, and check the written file against the network.

    Args:
        bundle: of the network.
        to: ``onnx``, ``tensorrt`` or ``tensorrt-rtx``.
        path: the file to write; None for a file in the bundle.
        batch: batch size of an ONNX file; None for a dynamic batch size.
        opset: opset of an ONNX file.
        gpus: GPU generations or compute capabilities that an engine must support; empty for TensorRT's choice.
        precision: number format of weights and activations: ``fp32``, ``fp16`` or ``int8``.
        data: images on which int8 is calibrated and evaluated; they have the network's classes and were used neither for training nor for
            testing.
        most_loss: largest loss of score by int8, as a fraction; layers stay in float32 until it is met.
        tuning_data: images on which the weights are tuned if int8 still loses too much, such as the training images; None for no tuning.
        tune_epochs: epochs of tuning, at least 1.
        seed: of the order of images while tuning.
        overwrite: whether an existing file may be replaced.
        progress: called with the state of the engine's build, or after every trial of quantization.

    Returns:
        The path of the file.

    Raises:
        OfaError: int8 lacks images or loses too much; the file cannot be written, or its outputs differ from the network's; TensorRT is
            not installed or refuses the network.
    """
    return write_target(
        bundle,
        to,
        path,
        check=partial(check_output, overwrite=overwrite, remedy=_REMEDY, ending=".onnx" if to == "onnx" else ""),
        batch=batch,
        opset=opset,
        gpus=gpus,
        precision=precision,
        data=data,
        most_loss=most_loss,
        tuning=tuning_on(tuning_data, epochs=tune_epochs, seed=seed),
        progress=progress,
    ).path


def verify(
    bundle: Bundle,
    device: Device | str,
    *,
    budget_ms: float | None = None,
    least_accuracy: float | None = None,
    most_bytes: int | None = None,
    data: Images | None = None,
    images: int | None = None,
    pause_ms: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Verification:
    """Verify a bundle on a device: compare its file's outputs with PyTorch, time it, and evaluate it on images; note the time on its card.

    Args:
        bundle: the bundle.
        device: a device, its name, or the path of its file.
        budget_ms: largest latency in milliseconds, for the median of calls under the settings of the device's file.
        least_accuracy: least score on the device, 0..1; needs ``data``.
        most_bytes: largest size of the timed file, in bytes.
        data: images of the network's classes; they run through the file on the device, and through PyTorch here. None for none.
        images: number of images to use, spread evenly over ``data``; None for all.
        pause_ms: also time calls after idle pauses of this many milliseconds; None for no such calls.
        seed: of the inputs.
        overwrite: whether a measurement already on the card may be replaced.
        progress: called with the work done so far.

    Returns:
        All results. ``missed`` names the budgets that are not kept, which is no error. With ``data``, ``judged`` has the score of the
        device's runtime beside PyTorch's and the card's.

    Raises:
        OfaError: the file's outputs differ from the network's, the images do not match the network, or the device cannot measure or run
            the file.
    """
    asked: dict[str, Any] = {"budget_ms": budget_ms, "least_accuracy": least_accuracy, "most_bytes": most_bytes}
    how: dict[str, Any] = {"data": data, "images": images, "pause_ms": pause_ms, "seed": seed, "overwrite": overwrite}
    return verify_bundle(bundle, device, **asked, **how, progress=progress)
