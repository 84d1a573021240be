"""The main road in Python, from a model or a space to the best network within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

import latency_tables
from devices import Device, get_device
from latency_tables import Estimator, LatencyTable, calibrate_table
from ofa.families import AdoptedSpace, get_space
from ofa.families.adopted import SHARES
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training import Run
from search.accuracy import AccuracySource, MeasuredAccuracy
from search.budget import Bound, Budget
from search.front.candidate import Candidate
from search.front.front import Front
from search.precisions.joining import joined
from search.precisions.sources import LossSource
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.active_learning import ROUNDS, fit_to_supernet
from search.problem import Problem, common_resolutions
from search.study import Effort, run_study

__all__ = ["adopt", "build_table", "fit_predictor", "query", "search"]

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


def _budget(limits: Limits) -> Budget:
    return limits if isinstance(limits, Budget) else Budget(limits)
