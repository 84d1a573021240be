"""The main road in Python, as ``from ofa import ...`` gives it: each step takes and returns values that can be saved and read back.

run = train("digits", "digits.run")
table = build_table(run.supernet.space, "local-cpu")
front = search(fit_predictor(run), [table])
(best,) = query(front, {"latency_ms": "2ms"})
bundle = specialize(run, best, "digits.bundle", front=front)
verify(bundle, "local-cpu")
export(bundle, "onnx", "digits.onnx")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import latency_tables
import ofa.training.specialization as specialization
from devices import Device, get_device
from latency_tables import Estimator, LatencyTable, calibrate_table
from ofa.arch import Arch
from ofa.data import Images
from ofa.exporting.bundle import Bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.quantization.choosing import MOST_LOSS
from ofa.exporting.quantization.tuning import EPOCHS, tuning_on
from ofa.exporting.targets import Target, write_target
from ofa.families import AdoptedSpace, get_space
from ofa.families.adopted import SHARES
from ofa.journal import Journal
from ofa.locking import writing
from ofa.opsets import OPSET
from ofa.outputs import check_output, check_output_folder
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.running import train
from ofa.schema import to_json
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.teachers import FoundTeacher, find_teacher
from ofa.training import Run, RunData
from ofa.training.evaluation import device_of
from search.accuracy import AccuracySource, MeasuredAccuracy
from search.budget import Bound, Budget
from search.front.candidate import Candidate
from search.front.front import Front
from search.front.promise import promise_of
from search.precisions.joining import joined
from search.precisions.sources import LossSource
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.active_learning import ROUNDS, fit_to_supernet
from search.problem import Problem, common_resolutions
from search.study import Effort, run_study
from search.verification.bundle import verify_bundle
from search.verification.verdict import Verification

__all__ = ["adopt", "build_table", "export", "fit_predictor", "query", "search", "specialize", "train", "verify"]

_REMEDY = "name another place, or pass overwrite=True"

Limits = Budget | Mapping[str, float | str | Bound | None]


def adopt(
    model: nn.Module,
    example: Tensor | Sequence[int],
    *,
    name: str | None = None,
    widths: Sequence[float] = SHARES,
    keep: Sequence[str] = (),
    min_depth: int | None = None,
    resolutions: Sequence[Resolution] | None = None,
    progress: Progress = silent,
) -> tuple[AdoptedSpace, Supernet]:
    """Make a trained model a supernet: the largest network is the model itself, all others are parts of it.

    ``ofa.adopting.adoption.adopt_model`` also tells what stays fixed and why; ``ofa adopt`` writes a run.

    Args:
        model: maps images [B, C, H, W] to logits [B, classes]; any module that torch can trace. It is left as it was.
        example: images [B, C, H, W], of which only the sizes count, or C, H and W.
        name: of the space; None for one after the model's class.
        widths: shares of its channels and heads that networks may keep; 1 is always among them.
        keep: patterns of names of layers or tensors, such as ``layer4.*``, whose sizes stay.
        min_depth: blocks that every network has of a run of equal ones; None for half of them.
        resolutions: of images besides that of the example, in pixels; None for some smaller ones, if the model computes them in the same
            way.
        progress: told of each step.

    Returns:
        The space and the supernet, in training mode, with the model's weights.

    Raises:
        SpaceError: an argument is none that can be, or the model cannot be adopted.
    """
    from ofa.adopting.adoption import adopt_model  # what traces takes a second to import, which all other steps need not spend

    image = example.shape[1:] if isinstance(example, Tensor) else example
    settings: dict[str, Any] = {"shares": widths, "keep": keep, "min_depth": min_depth, "resolutions": resolutions}
    found = adopt_model(model, image, name=name, progress=progress, **settings)
    return found.space, found.supernet


def build_table(
    space: Space | str,
    device: Device | str,
    *,
    nets: int = 20,
    resolutions: Iterable[Resolution] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LatencyTable:
    """Time every block of a space on a device, and whole networks, by which the sum of the blocks is corrected.

    Args:
        space: a space, or what ``get_space`` takes.
        device: a device, its name, or the path of its file.
        nets: whole networks to time, at least 9; 0 for none: then the table knows no interval.
        resolutions: of the input, in pixels; None for all of the space.
        seed: of networks, inputs and order of measurement.
        progress: told how far it is.

    Raises:
        OfaError: the space or the device is unknown, or the device cannot measure.
    """
    chosen = get_space(space) if isinstance(space, str) else space
    measured = get_device(device) if isinstance(device, str) else device
    sizes = None if resolutions is None else tuple(resolutions)
    rng = np.random.default_rng(seed)
    table = latency_tables.build_table(chosen, measured, resolutions=sizes, rng=rng, progress=progress)
    if nets == 0:
        return table
    return calibrate_table(table, chosen, measured, nets=nets, resolutions=sizes, rng=rng, progress=progress)


def fit_predictor(run: Run, *, nets: int = 100, rounds: int = ROUNDS, seed: int = 0, progress: Progress = silent) -> AccuracyPredictor:
    """Measure networks of a run where its supernet lies, and learn to predict the accuracy of all others.

    Args:
        run: a trained supernet and its images.
        nets: how many are measured, at least 10.
        rounds: in how many they are chosen near the front or where the predictor is unsure; 0 takes all evenly over MACs.
        seed: of networks and folds.
        progress: told how many are measured.

    Raises:
        OfaError: the images are gone or others, or the networks do not suffice.
    """
    splits = run.load_data().splits
    rng, task = np.random.default_rng(seed), run.recipe.get_task()
    return fit_to_supernet(run.supernet, splits, nets=nets, rounds=rounds, rng=rng, progress=progress, task=task)


def search(
    accuracy: AccuracySource | Run,
    tables: Sequence[LatencyTable] = (),
    *,
    losses: Sequence[LossSource] = (),
    budget: Limits | None = None,
    objectives: Sequence[str] | None = None,
    resolutions: Sequence[Resolution] | None = None,
    trials: int = 160,
    evaluations: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Front:
    """Find the networks that nothing beats in accuracy and cost.

    Args:
        accuracy: a predictor, or a run whose networks are all measured (slow, exact).
        tables: of latencies, one a device; of one device in several precisions one for each, and precision is chosen with the network.
        losses: what networks lose in each precision that is fitted to images, such as ``search.predictor.quantization`` learns.
        budget: limits that every network keeps.
        objectives: costs to trade against accuracy, such as ``macs`` or ``latency_high_ms@pi``; None for the latency on every device,
            or the MACs without any. Empty, only accuracy counts.
        resolutions: of the input; None for all that accuracies and tables know.
        trials: of the study, which Optuna keeps.
        evaluations: networks that evolution by arrays evaluates besides; None is 200,000, and 0, with which each network is a trial of
            Optuna's NSGA-II, for a run, whose networks are measured.
        seed: decides all choices.
        progress: told how many networks are evaluated.

    Raises:
        OfaError: accuracies and tables are of different spaces, or no network keeps the budget.
    """
    source: AccuracySource
    if isinstance(accuracy, Run):
        splits = accuracy.load_data().splits
        source = MeasuredAccuracy(accuracy.supernet, splits.selection, splits.train, task=accuracy.recipe.get_task())
        evaluations = evaluations or 0
    else:
        source = accuracy
    known = source.space.resolutions
    space = source.space.restrict(resolution=resolutions or common_resolutions(source.space, known, tables))
    parts = joined(space, source, [Estimator(space, table) for table in tables], losses)
    problem = Problem(
        space=parts.space,
        accuracy=parts.accuracy,
        latencies=parts.latencies,
        budget=_budget(budget or {}),
        objectives=None if objectives is None else tuple(objectives),
        whole=getattr(accuracy, "whole", None),
    )
    looked_at = {} if evaluations is None else {"evaluations": evaluations}
    return run_study(problem, seed=seed, effort=Effort(trials=trials, **looked_at), progress=progress)


def query(front: Front, budget: Limits, *, top: int = 1) -> tuple[Candidate, ...]:
    """The most accurate networks of a front within a budget, best first.

    Args:
        front: the front.
        budget: limits by name, in the name's unit or as text with one: ``{"latency_ms": "12ms", "weight_bytes": "2MiB"}``.
        top: how many.

    Raises:
        SearchError: a limit that the front does not know.
        ImpossibleBudgetError: no network of the front keeps it; the message names the nearest.
    """
    return front.query(_budget(budget), top)


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
        overwrite: whether a bundle that is there may be replaced.
        progress: told of every epoch.
        journal: keeps what is measured and, beside it, states of the fine-tuning; entered by the caller. None keeps nothing.
        stop: asked after every step of fine-tuning.
        on_note: told in a sentence of a kept state that is damaged.

    Returns:
        The bundle; its card has the accuracy on the test part, and in ``provenance`` that before fine-tuning and the teacher's.

    Raises:
        OfaError: the arch is of another space, the images, the teacher or the folder cannot be used, or the export fails.
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
        return write_bundle(
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


def _budget(limits: Limits) -> Budget:
    return limits if isinstance(limits, Budget) else Budget(limits)
