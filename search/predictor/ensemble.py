"""An ensemble of Gaussian processes with different kernels, on a transformed accuracy scale.

Shapes: N rows to predict, M rows fitted to, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.arrays import Floats
from search.predictor.features import Feature
from search.predictor.gaussian_process import GaussianProcess, Kernel, Linear, Rational, most_likely

__all__ = ["Ensemble", "LeftOut", "Scale", "cross_validate"]

_MARGINS = (None, 2.0, 0.7, 0.3)
"""Candidate ceilings: best accuracy + margin x (max - min); None for no ceiling."""
_ROWS_FOR_PARAMETERS = 300
"""Most rows for finding parameters: the cost is cubic in the rows, and some hundreds suffice."""


@dataclass(frozen=True)
class Scale:
    """A strictly increasing map from accuracies to values of mean 0 and standard deviation 1.

    With a ceiling it is the negative logarithm of the distance to the ceiling: a change that gains a bad network one point gains a good
    network less.

    Attributes:
        ceiling: an accuracy above all measured ones; None for a linear scale.
        mean, deviation: mean and standard deviation of the values before standardization.
    """

    ceiling: float | None
    mean: float
    deviation: float

    @classmethod
    def of(cls, accuracy_M: Floats, margin: float | None) -> Scale:
        """The scale fitted to accuracies; ``margin`` as in ``_MARGINS``."""
        if np.ptp(accuracy_M) == 0:
            return cls(None, float(accuracy_M[0]), 1.0)
        ceiling = None if margin is None else float(accuracy_M.max() + margin * np.ptp(accuracy_M))
        value_M = cls(ceiling, 0.0, 1.0).up(accuracy_M)
        return cls(ceiling, float(value_M.mean()), float(value_M.std()))

    def up(self, accuracy_N: Floats) -> Floats:
        """Values of accuracies, which must lie below the ceiling."""
        raw_N = accuracy_N if self.ceiling is None else -np.log(self.ceiling - accuracy_N)
        return np.asarray((raw_N - self.mean) / self.deviation)

    def down(self, value_N: Floats) -> Floats:
        """Accuracies of values."""
        raw_N = value_N * self.deviation + self.mean
        return np.asarray(raw_N if self.ceiling is None else self.ceiling - np.exp(-raw_N))

    def slope(self, accuracy_N: Floats) -> Floats:
        """How fast values grow with the accuracy."""
        if self.ceiling is None:
            return np.full(len(accuracy_N), 1 / self.deviation)
        return np.asarray(1 / (self.ceiling - accuracy_N) / self.deviation)


class Ensemble:
    """Gaussian processes fitted to the same networks; the mean of their means predicts.

    Args:
        features: descriptions of the feature columns.
        x_MF: features of the networks.
        accuracy_M: accuracies of the networks.
        parameters: ``parameters`` of a fitted ensemble, as JSON values.

    Raises:
        ValueError: the parameters are no result of ``fit``.
    """

    def __init__(self, features: Sequence[Feature], x_MF: Floats, accuracy_M: Floats, parameters: dict[str, Any]) -> None:
        if parameters["margin"] not in _MARGINS:
            raise ValueError(f"'margin' must be one of {_MARGINS}, but is {parameters['margin']!r}")
        self.scale = Scale.of(accuracy_M, parameters["margin"])
        self.parameters = parameters
        value_M = self.scale.up(accuracy_M)
        thetas = [np.array(theta, dtype=np.float64) for theta in parameters["processes"]]
        members = list(zip(kernels(features), thetas, strict=True))
        for kernel, theta in members:
            kernel.check(theta)
        self._members = [GaussianProcess(kernel, theta, x_MF, value_M) for kernel, theta in members]

    @classmethod
    def fit(cls, features: Sequence[Feature], x_MF: Floats, accuracy_M: Floats, start: dict[str, Any] | None = None) -> Ensemble:
        """Find scale and kernel parameters by maximum likelihood; deterministic.

        Args:
            features: descriptions of the feature columns.
            x_MF: features of the networks.
            accuracy_M: accuracies of the networks.
            start: parameters of an ensemble fitted to nearly the same networks, as the start of the optimization.
        """
        chosen = np.linspace(0, len(x_MF) - 1, min(len(x_MF), _ROWS_FOR_PARAMETERS)).astype(np.intp)

        def thetas(margin: float | None, starts: Sequence[Floats | None]) -> list[Floats]:
            value_M = Scale.of(accuracy_M, margin).up(accuracy_M)
            return [
                most_likely(kernel, x_MF[chosen], value_M[chosen], begin) for kernel, begin in zip(kernels(features), starts, strict=True)
            ]

        def ensemble(margin: float | None, found: Sequence[Floats]) -> Ensemble:
            return cls(features, x_MF, accuracy_M, {"margin": margin, "processes": [theta.tolist() for theta in found]})

        if start is None:
            first: list[Floats] = thetas(None, [None] * len(kernels(features)))
        else:
            first = [np.array(theta) for theta in start["processes"]]
        # Choose the scale with approximate parameters: the parameters depend little on it.
        margin = max(_MARGINS, key=lambda each: ensemble(each, first)._likelihood(accuracy_M))
        return ensemble(margin, thetas(margin, first))

    def value(self, x_NF: Floats) -> Floats:
        """The expected values on ``scale``; [N]."""
        return np.asarray(np.mean([member.mean(x_NF) for member in self._members], axis=0))

    def deviation(self, x_NF: Floats) -> Floats:
        """Predictive standard deviations on ``scale``, with noise and the disagreement of the members; [N]."""
        variance_N = np.mean([np.square(member.deviation(x_NF)) for member in self._members], axis=0)
        return np.asarray(np.sqrt(variance_N + np.var([member.mean(x_NF) for member in self._members], axis=0)))

    def expected(self, x_NF: Floats) -> Floats:
        """The expected accuracies; [N]."""
        return self.scale.down(self.value(x_NF))

    def interval(self, x_NF: Floats, width: float) -> tuple[Floats, Floats]:
        """The accuracies ``width`` standard deviations below and above the expected ones; [N] each."""
        value_N, half_N = self.value(x_NF), width * self.deviation(x_NF)
        return self.scale.down(value_N - half_N), self.scale.down(value_N + half_N)

    def _likelihood(self, accuracy_M: Floats) -> float:
        """Leave-one-out log predictive density of the accuracies, summed over members and networks."""
        value_M, total = self.scale.up(accuracy_M), 0.0
        for member in self._members:
            mean_M, deviation_M = member.left_out()
            total += float(np.sum(-0.5 * np.square((value_M - mean_M) / deviation_M) - np.log(deviation_M)))
        return total + len(self._members) * float(np.log(self.scale.slope(accuracy_M)).sum())


def kernels(features: Sequence[Feature]) -> tuple[Kernel, Kernel]:
    """The kernels of the ensemble's two members.

    The first has a length scale for the genes of each stage. The second has one for each kind of gene, and adds a part on sums over stages
    to a part on single blocks. Both have a linear part, which extrapolates beyond the known networks.
    """
    sums = np.array([f for f, each in enumerate(features) if not each.hot], dtype=np.intp)
    # MACs and input size describe the whole network, so every part sees them.
    blocks = np.array([f for f, each in enumerate(features) if each.hot or each.kind in ("macs", "resolution", "aspect")])
    everything = np.arange(len(features))

    def rational(columns: NDArray[np.intp], *, stages: bool) -> Rational:
        names = [(each.kind, each.hot, each.stage if stages else -1) for each in (features[c] for c in columns)]
        order = list(dict.fromkeys(names))
        return Rational(columns, np.array([order.index(name) for name in names], dtype=np.intp))

    first = Kernel([Linear(sums), rational(everything, stages=True)])
    second = Kernel([Linear(sums), rational(sums, stages=False), rational(blocks, stages=False)])
    return first, second


@dataclass(frozen=True)
class LeftOut:
    """Predictions for each network by an ensemble that was fitted without it; [M] each.

    Attributes:
        fold: the fold of each network.
        accuracy: expected accuracy.
        score: distance of the measured value from the expected one on the ensemble's scale, in standard deviations.
        deviation: standard deviation of the accuracy.
    """

    fold: NDArray[np.intp]
    accuracy: Floats
    score: Floats
    deviation: Floats


def cross_validate(
    features: Sequence[Feature], x_MF: Floats, accuracy_M: Floats, *, folds: int, rng: np.random.Generator, start: dict[str, Any]
) -> LeftOut:
    """K-fold cross-validation: fit everything, including the parameters, to the other folds, and predict the left-out fold.

    Args:
        features: descriptions of the feature columns.
        x_MF: features of the networks.
        accuracy_M: accuracies of the networks.
        folds: number of folds.
        rng: assigns the networks to folds.
        start: start of the optimization of the parameters, which uses the remaining networks only.
    """
    fold_M = rng.permutation(len(x_MF)) % folds
    expected_M, score_M, deviation_M = (np.empty(len(x_MF)) for _ in range(3))
    for fold in range(folds):
        out_M = fold_M == fold
        ensemble = Ensemble.fit(features, x_MF[~out_M], accuracy_M[~out_M], start)
        value_N, spread_N = ensemble.value(x_MF[out_M]), ensemble.deviation(x_MF[out_M])
        expected_M[out_M] = ensemble.scale.down(value_N)
        deviation_M[out_M] = spread_N / ensemble.scale.slope(expected_M[out_M])
        score_M[out_M] = _scores(ensemble.scale, accuracy_M[out_M], value_N, spread_N)
    return LeftOut(fold_M, expected_M, score_M, deviation_M)


def _scores(scale: Scale, accuracy_N: Floats, value_N: Floats, spread_N: Floats) -> Floats:
    """Distances in standard deviations; infinite for an accuracy at or above the scale's ceiling."""
    score_N = np.full(len(accuracy_N), np.inf)
    possible_N = accuracy_N < np.inf if scale.ceiling is None else accuracy_N < scale.ceiling
    score_N[possible_N] = np.abs(scale.up(accuracy_N[possible_N]) - value_N[possible_N]) / spread_N[possible_N]
    return score_N
