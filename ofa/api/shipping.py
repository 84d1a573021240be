"""The main road in Python, from a network of a run to what ships: specialized, exported, verified."""

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

_REMEDY = "name another place, or pass overwrite=True"


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
    """Extract a network of a run, calibrate it, fine-tune it beside a teacher, and write it as a bundle.

    Args:
        run: the supernet, which computes where it lies, and its recipe.
        network: an arch, or the answer of a front, whose promise goes on the bundle's card.
        folder: the bundle; the folder it stands in must exist.
        front: that the answer is of.
        device: of the front, whose promise it is; None for its first.
        epochs: of fine-tuning; 0 only calibrates.
        teacher: one of one's own, as ``ofa.teachers.find_teacher`` takes or gives it; empty for the run's largest network.
        seed: of the order and the augmentation of the images.
        data: the run's images, where they are loaded already.
        precision: of a further file of the network; None for that which the answer of a front is meant in. Int8 is fitted to and judged on
            the run's held-out images, and where it loses too much its weights are tuned on those of the training.
        most_loss: of the score that int8 may lose.
        overwrite: whether a bundle that is there may be replaced.
        progress: told of every epoch, and of the ways to quantize.
        journal: keeps what is measured and, beside it, states of the fine-tuning; entered by the caller. None keeps nothing.
        stop: asked after every step of fine-tuning.
        on_note: told in a sentence of a kept state that is damaged.

    Returns:
        The bundle; its card has the accuracy on the test part, and in ``provenance`` that before fine-tuning and the teacher's.

    Raises:
        OfaError: the arch is of another space, the images, the teacher or the folder cannot be used, or the export fails; where int8 loses
            too much the bundle is there in float32.
        KeyboardInterrupt: ``stop`` said yes.
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
    """In which precision a network is meant: that of a front's answer, or float32."""
    return (network.precision if isinstance(network, Candidate) else None) or FLOAT


def in_precision(
    bundle: Bundle, splits: Splits, precision: str, *, most_loss: float = MOST_LOSS, seed: int = 0, progress: Progress = silent
) -> Bundle:
    """Add the file of a precision to a bundle, by the images of its run, and return the bundle with its card of now.

    Args:
        bundle: of the network.
        splits: the run's images: those to select on fit and judge int8, those of the training tune it where it loses too much.
        precision: of the file; that of a file that is there already writes none.
        most_loss: of the score that int8 may lose.
        seed: of the order of the images of a tuning.
        progress: told of the ways to quantize.

    Raises:
        ExportError: the network loses more, whatever is done; or it cannot be written so.
    """
    if bundle.file(precision).is_file():
        return bundle
    fitted = PRECISIONS.get(precision).is_of_data
    data, tuning_data = (splits.selection, splits.train) if fitted else (None, None)
    try:
        export(bundle, "onnx", precision=precision, data=data, most_loss=most_loss, tuning_data=tuning_data, seed=seed, progress=progress)
    except ExportError as error:
        raise ExportError(f"{error}; the bundle '{bundle.folder}' is there in fp32") from error
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
    """Write a bundle's network for a runtime, check what was written, and say where that is.

    Args:
        bundle: whose network.
        to: an ONNX file, or an engine of TensorRT or TensorRT for RTX.
        path: the file; None for one in the bundle.
        batch: images a call of an ONNX file; None leaves them open.
        opset: version of an ONNX file's operators.
        gpus: GPU generations or compute capabilities that an engine is for; empty leaves them to TensorRT.
        precision: number format of weights and activations: ``fp32``, ``fp16`` or ``int8``.
        data: what int8 is fitted to and judged on: images of the network's classes that it was neither trained nor tested on.
        most_loss: of the score that int8 may lose; layers stay in float32 until that holds.
        tuning_data: where int8 loses more, its weights are trained on these images; those of the training will do. None trains nothing.
        tune_epochs: passes over them, at least 1.
        seed: of their order.
        overwrite: whether a file that is there may be replaced.
        progress: told how far an engine is, or the search for the best way to quantize.

    Raises:
        OfaError: int8 is asked for without images, or loses more; the file cannot be written or computes something else; TensorRT is
            not there or refuses the network.
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
    """Compare a bundle's file with PyTorch, time it on a device, run it there on images, compare that with its card, and note the time.

    Arguments, result and errors are those of ``search.verification.bundle.verify_bundle``. With ``data``, images of the network's classes,
    the result has the score that the device's runtime gives beside PyTorch's and the card's (``judged``); ``missed`` names the budgets
    that are not kept.
    """
    asked: dict[str, Any] = {"budget_ms": budget_ms, "least_accuracy": least_accuracy, "most_bytes": most_bytes}
    how: dict[str, Any] = {"data": data, "images": images, "pause_ms": pause_ms, "seed": seed, "overwrite": overwrite}
    return verify_bundle(bundle, device, **asked, **how, progress=progress)
