"""The Python API, first half: from a model or a space to the best network within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

import latency_tables
from devices import Device, get_device
from latency_tables import Estimator, LatencyTable, calibrate_table
from ofa.families import AdoptedSpace
from ofa.families.adopted import SHARES
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training import Run
from ofa.training.spaces import find_space
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
    """Convert a trained model to a supernet: the largest network is the model itself, all others are parts of it.

    ``ofa.adopting.adoption.adopt_model`` also reports which sizes stay fixed and why; the command ``ofa adopt`` writes a run.

    Args:
        model: maps images [B, C, H, W] to logits [B, classes]; any module that torch can trace. It is not changed.
        example: images [B, C, H, W], of which only the shape matters, or (C, H, W).
        name: of the space; None for a name derived from the model's class.
        widths: shares of channels and heads that networks may keep, in (0, 1]; 1 is always included.
        keep: patterns of names of layers or tensors, such as ``layer4.*``, whose sizes stay fixed.
        min_depth: least number of blocks that every network keeps from a sequence of equal blocks; None for half of them.
        resolutions: further resolutions of images besides the example's, in pixels; None for some smaller ones, if the model handles
            them by the same operations.
        progress: called after each step.

    Returns:
        The space, and the supernet in training mode with the model's weights.

    Raises:
        SpaceError: an argument is invalid, or the model cannot be adopted.
    """
    from ofa.adopting.adoption import adopt_model  # imported here because tracing takes a second to import

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
    """Build a latency table: time every block of a space on a device, and whole networks to calibrate the sum of the blocks.

    Args:
        space: a space, its name, its file, ``module:attribute``, or the folder of a run, whose classes it then has.
        device: a device, its name, or the path of its file.
        nets: number of whole networks to time, at least 9; 0 for no calibration, so that estimates have no interval.
        resolutions: of the input, in pixels; None for all of the space.
        seed: of the choice of networks, the inputs and the order of measurement.
        progress: called with the work done so far.

    Returns:
        The table; latencies are in milliseconds.

    Raises:
        OfaError: the space or the device is unknown, or the device cannot measure.
    """
    chosen = find_space(space) if isinstance(space, str) else space
    measured = get_device(device) if isinstance(device, str) else device
    sizes = None if resolutions is None else tuple(resolutions)
    rng = np.random.default_rng(seed)
    table = latency_tables.build_table(chosen, measured, resolutions=sizes, rng=rng, progress=progress)
    if nets == 0:
        return table
    return calibrate_table(table, chosen, measured, nets=nets, resolutions=sizes, rng=rng, progress=progress)


def fit_predictor(run: Run, *, nets: int = 100, rounds: int = ROUNDS, seed: int = 0, progress: Progress = silent) -> AccuracyPredictor:
    """Measure the accuracy of some networks of a run, on its supernet's device, and fit a predictor for all others.

    Args:
        run: a trained supernet and its images.
        nets: number of networks to measure, at least 10.
        rounds: rounds of active learning, which choose networks near the front or where the predictor is uncertain; 0 spreads all
            networks evenly over MACs.
        seed: of the choice of networks and of the cross-validation folds.
        progress: called with the number of measured networks.

    Returns:
        The predictor; accuracies are in 0..1.

    Raises:
        OfaError: the images are missing or have changed, or there are too few networks.
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
    """Search the Pareto front of accuracy and costs.

    Args:
        accuracy: a predictor, or a run whose networks are all measured (exact, but slow).
        tables: latency tables, one per device. Several tables of one device in different precisions make precision a gene.
        losses: sources of the accuracy loss in each precision that is calibrated on images, such as from ``search.predictor.quantization``.
        budget: limits that every network of the front keeps.
        objectives: costs to trade against accuracy, such as ``macs`` or ``latency_high_ms@pi``. None for the latency on every device,
            or MACs if there are no tables; empty for accuracy only.
        resolutions: of the input, in pixels; None for all that ``accuracy`` and all tables cover.
        trials: number of trials of the Optuna study.
        evaluations: number of networks that array-based evolution evaluates in addition to the trials. None for 200,000, or for 0 if
            ``accuracy`` is a run. With 0, each network is a trial of Optuna's NSGA-II.
        seed: of all random choices.
        progress: called with the number of evaluated networks.

    Returns:
        The front.

    Raises:
        OfaError: ``accuracy`` and the tables are of different spaces, or no network keeps the budget.
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
    """The most accurate networks of a front within a budget.

    Args:
        front: the front.
        budget: limits by name, as numbers in the name's unit or as texts with a unit: ``{"latency_ms": "12ms", "weight_bytes": "2MiB"}``.
        top: number of networks.

    Returns:
        At most ``top`` networks, the most accurate first.

    Raises:
        SearchError: the front does not have a cost that is limited.
        ImpossibleBudgetError: no network of the front keeps the budget; the message names the nearest values.
    """
    return front.query(_budget(budget), top)


def _budget(limits: Limits) -> Budget:
    return limits if isinstance(limits, Budget) else Budget(limits)
