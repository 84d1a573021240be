"""Active learning: measures a fair sample first, then uncertain networks that may be on the front.

Shapes: N networks, C columns of the space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.data import Splits
from ofa.errors import SearchError
from ofa.journal import UNKEPT, Steps
from ofa.progress import Progress, silent
from ofa.space import ROW_DTYPE, Space
from ofa.supernet import Supernet
from ofa.tasks import CLASSIFICATION, Task
from search.accuracy import MeasuredAccuracy
from search.predictor.accuracy_predictor import AccuracyPredictor, fit_ensemble
from search.predictor.features import log_macs
from search.predictor.sampling import sample_stratified
from search.predictor.training_data import LEAST_NETWORKS

__all__ = ["ROUNDS", "fit_actively", "fit_to_supernet"]

Measure = Callable[[Sequence[Arch]], Floats]

ROUNDS = 8
"""Default number of rounds; more rounds choose better networks, and cost some seconds each."""
_FAIR_SHARE = 0.4
_OPTIMISM = 2.0
"""Upper confidence bound: standard deviations that are added to the expected accuracy."""
_CANDIDATES = 4_000
_GENERATIONS = 4
"""Generations of candidates: the first is random, the others are mutations of the most promising so far."""
_PARENTS = 200
"""Smallest number of parents of a generation."""
_MUTATION = 0.05
"""Mutation probability of each gene."""


def fit_to_supernet(
    supernet: Supernet,
    data: Splits,
    *,
    nets: int,
    rng: np.random.Generator,
    rounds: int = ROUNDS,
    progress: Progress = silent,
    task: Task = CLASSIFICATION,
    steps: Steps = UNKEPT,
) -> AccuracyPredictor:
    """Fit a predictor to networks of a trained supernet, whose scores are measured on the selection part of the data.

    Args:
        supernet: a trained supernet.
        data: the supernet's data.
        nets: number of networks to measure, at least 10.
        rng: draws the networks.
        rounds: number of rounds, as of ``fit_actively``.
        progress: receives the number of measured networks.
        task: task of the supernet.
        steps: journal that keeps the score of each network.

    Raises:
        OfaError: as ``fit_actively`` and ``MeasuredAccuracy``.
    """
    before = 0

    def show(done: int, total: int, text: str = "") -> None:
        # The source counts from 0 in each call.
        progress(before + done, nets, text)

    source = MeasuredAccuracy(supernet, data.selection, data.train, progress=show, task=task, steps=steps)

    def measure(archs: Sequence[Arch]) -> Floats:
        nonlocal before
        accuracies = source(archs)
        before += len(archs)
        return accuracies

    return fit_actively(supernet.space, measure, nets=nets, rng=rng, rounds=rounds, progress=progress, metric=task.metric)


def fit_actively(
    space: Space,
    measure: Measure,
    *,
    nets: int,
    rng: np.random.Generator,
    rounds: int = ROUNDS,
    progress: Progress = silent,
    metric: str = "accuracy",
) -> AccuracyPredictor:
    """Choose ``nets`` networks by active learning, measure them, and fit a predictor.

    Two fifths of the networks are a stratified sample. Each round then fits to all measured networks, and chooses networks of all sizes
    whose upper confidence bound exceeds the predicted front by most: networks near the front, or with uncertain accuracy.

    Args:
        space: the space of the networks.
        measure: returns the accuracies (0..1) of networks; called once for each network.
        nets: number of networks to measure, at least 10.
        rng: draws the networks.
        rounds: number of rounds for the other three fifths; 0 measures a stratified sample only.
        progress: receives the number of measured networks before each round.
        metric: name of the score.

    Returns:
        The predictor. Its ``fair_trust`` is measured on the stratified sample, because the chosen networks do not represent the space.

    Raises:
        SearchError: ``nets`` is below 10 or above the number of networks in the space; else as ``AccuracyPredictor.fit``.
    """
    if not LEAST_NETWORKS <= nets <= space.size:
        raise SearchError(
            f"a predictor of {space.name} is fitted to {LEAST_NETWORKS} to {space.size} networks, but nets is {nets}; "
            "choose a number between"
        )
    fair = nets if rounds == 0 else max(LEAST_NETWORKS, round(_FAIR_SHARE * nets))
    progress(0, nets, f"a stratified sample of {fair}")
    archs = sample_stratified(space, fair, rng)
    accuracies = np.asarray(measure(archs), dtype=np.float64)
    for number in range(rounds):
        count = (nets - len(archs)) // (rounds - number)
        if count == 0:
            continue
        progress(len(archs), nets, f"round {number + 1} of {rounds}: {count} near the front or unsure")
        chosen = _choose(space, archs, accuracies, count, rng)
        archs += chosen
        accuracies = np.concatenate([accuracies, np.asarray(measure(chosen), dtype=np.float64)])
    progress(nets, nets, "fitting")
    return AccuracyPredictor.fit(space, archs, accuracies, rng, fair=np.arange(nets) < fair, metric=metric)


def _choose(space: Space, archs: Sequence[Arch], accuracies: Floats, count: int, rng: np.random.Generator) -> list[Arch]:
    """The ``count`` most promising unmeasured networks, spread over all sizes."""
    ensemble, known, _ = fit_ensemble(space, archs, accuracies)
    measured_NC = space.encode_all(archs)
    # In a small space, the stratified sample makes sure that there are enough candidates.
    enough = space.encode_all(sample_stratified(space, min(space.size, len(archs) + count), rng))
    rows_NC = np.concatenate([enough, space.sample_rows(_CANDIDATES // 2, rng), space.sample_leaning_rows(_CANDIDATES // 2, rng)])
    for generation in range(_GENERATIONS):
        rows_NC = _new(rows_NC, measured_NC)
        x_NF, size_N = known(space.rows_in(known.space, rows_NC)), log_macs(space, rows_NC)
        expected_N = ensemble.value(x_NF)
        gain_N = expected_N + _OPTIMISM * ensemble.deviation(x_NF) - _best_so_far(size_N, expected_N)
        if generation < _GENERATIONS - 1:
            best_NC = rows_NC[_spread(size_N, gain_N, max(count, _PARENTS))]
            rows_NC = np.concatenate([best_NC, _mutated(space, best_NC, _CANDIDATES, rng)])
    return [space.decode(row) for row in rows_NC[_spread(size_N, gain_N, count)].tolist()]


def _new(rows_NC: Rows, measured_NC: Rows) -> Rows:
    """The unmeasured rows without duplicates, in an order that does not depend on how they were found."""
    known = {row.tobytes() for row in measured_NC}
    different_NC = np.unique(rows_NC, axis=0)
    return different_NC[[row.tobytes() not in known for row in different_NC]]


def _best_so_far(size_N: Floats, expected_N: Floats) -> Floats:
    """For each network the highest expected accuracy of any network of at most its size; [N]."""
    order = np.argsort(size_N, kind="stable")
    best_N = np.empty(len(size_N))
    best_N[order] = np.maximum.accumulate(expected_N[order])
    return best_N


def _spread(size_N: Floats, gain_N: Floats, count: int) -> Rows:
    """Indices of the rows with the largest gains: the best of each of ``count`` size classes, then the second best, and so on."""
    edges = np.linspace(size_N.min(), size_N.max(), count + 1)[1:-1]
    class_N = np.searchsorted(edges, size_N)
    order = np.lexsort([-gain_N, class_N])
    first_of_class = np.searchsorted(class_N[order], class_N[order])
    rank_N = np.empty(len(size_N), dtype=np.intp)
    rank_N[order] = np.arange(len(size_N)) - first_of_class
    return np.lexsort([-gain_N, rank_N])[:count]


def _mutated(space: Space, rows_NC: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Random rows with some genes mutated; [count, C]."""
    parents_NC = rows_NC[rng.integers(len(rows_NC), size=count)]
    drawn_NC = rng.integers(space.cardinalities, size=parents_NC.shape, dtype=ROW_DTYPE)
    return space.canonical(np.where(rng.random(parents_NC.shape) < _MUTATION, drawn_NC, parents_NC))
