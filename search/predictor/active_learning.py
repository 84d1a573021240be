"""Measuring where it matters: a fair sample first, then networks that may be on the front and are not well known.

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
"""More rounds choose better and cost some seconds each."""
_FAIR_SHARE = 0.4
_OPTIMISM = 2.0
"""Standard deviations that a network's accuracy is hoped to be above what is expected."""
_CANDIDATES = 4_000
_GENERATIONS = 4
"""Of candidates: the first at random, the others mutated from the most promising so far."""
_PARENTS = 200
"""Fewest that the next generation descends from."""
_MUTATION = 0.05
"""The chance of each gene to be drawn anew."""


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
    """Fit a predictor to networks of a trained supernet, measured on the selection part by its task's score; ``steps`` keeps each of them.

    Other arguments and errors as ``fit_actively``.
    """
    before = 0

    def show(done: int, total: int, text: str = "") -> None:
        # The source counts from 0 each time it is asked.
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
    """Choose ``nets`` networks, have them measured, and fit a predictor.

    Two fifths of them are a stratified sample. Each round then fits to all that is measured, and chooses networks of all sizes of which
    an optimist would say that they beat the front as it is predicted: they are near it, or not well known.

    Args:
        space: where the networks are from.
        measure: gives the accuracies (0..1) of networks; asked for each network once.
        nets: how many are measured, at least 10.
        rng: decides which.
        rounds: in how many parts the others are chosen; 0 for a stratified sample only.
        progress: told how many are measured, before each part.
        metric: what the accuracies are called.

    Returns:
        The predictor. Its ``fair_trust`` goes by the stratified sample, since those chosen are not like the others.

    Raises:
        SearchError: fewer than 10 networks, or more than the space has; else as ``AccuracyPredictor.fit``.
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
    """The ``count`` most promising networks that are not measured yet, spread over all sizes."""
    ensemble, known, _ = fit_ensemble(space, archs, accuracies)
    measured_NC = space.encode_all(archs)
    # The sample makes sure that there are enough, in a space of few networks.
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
    """Each row once that is not measured, in an order that does not depend on how they were found."""
    known = {row.tobytes() for row in measured_NC}
    different_NC = np.unique(rows_NC, axis=0)
    return different_NC[[row.tobytes() not in known for row in different_NC]]


def _best_so_far(size_N: Floats, expected_N: Floats) -> Floats:
    """The most that is expected of any network that is no larger; [N]."""
    order = np.argsort(size_N, kind="stable")
    best_N = np.empty(len(size_N))
    best_N[order] = np.maximum.accumulate(expected_N[order])
    return best_N


def _spread(size_N: Floats, gain_N: Floats, count: int) -> Rows:
    """Which rows have the largest gain of their size: the best of each of ``count`` classes of size, then the second best, and so on."""
    edges = np.linspace(size_N.min(), size_N.max(), count + 1)[1:-1]
    class_N = np.searchsorted(edges, size_N)
    order = np.lexsort([-gain_N, class_N])
    first_of_class = np.searchsorted(class_N[order], class_N[order])
    rank_N = np.empty(len(size_N), dtype=np.intp)
    rank_N[order] = np.arange(len(size_N)) - first_of_class
    return np.lexsort([-gain_N, rank_N])[:count]


def _mutated(space: Space, rows_NC: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Rows in which some genes are drawn anew; [count, C]."""
    parents_NC = rows_NC[rng.integers(len(rows_NC), size=count)]
    drawn_NC = rng.integers(space.cardinalities, size=parents_NC.shape, dtype=ROW_DTYPE)
    return space.canonical(np.where(rng.random(parents_NC.shape) < _MUTATION, drawn_NC, parents_NC))
