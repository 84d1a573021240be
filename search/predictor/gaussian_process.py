"""Gaussian process regression: kernels as sums of parts, maximum a posteriori parameters, and fast predictions.

After Rasmussen and Williams ("Gaussian Processes for Machine Learning", 2006): algorithm 2.1, equations 5.9 (gradient of the likelihood)
and 5.12 (leave-one-out predictions without refitting). scikit-learn's kernels can group neither length scales nor columns.

Shapes: N rows to predict, M rows fitted to, F features, P parameters, G groups of length scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import minimize

from ofa.arrays import Floats

__all__ = ["GaussianProcess", "Kernel", "Linear", "Rational", "most_likely"]

_NOISE = np.log(0.02)
_NOISE_SPREAD, _VARIANCE_SPREAD, _SCALE_SPREAD = 2.0, 2.0, 1.0
"""Prior standard deviations of the logarithms of noise, variances and length scales."""
_JITTER = 1e-6
"""Lowest noise, for a stable Cholesky factorization."""
_BOUND = 9.0
"""Largest distance of a parameter (a logarithm) from its start."""
_ROUNDING = 1e-9
_UNLIKELY = 1e10
"""The loss where a kernel matrix cannot be factorized."""
_CHUNK = 512
"""Rows predicted at a time, so that their kernel matrix stays in the cache."""


class Part(Protocol):
    """A summand of a kernel. Its parameters are logarithms; the first one is of its variance."""

    @property
    def start(self) -> Floats:
        """Prior means of the parameters; [P]."""

    @property
    def spread(self) -> Floats:
        """Prior standard deviations of the parameters; [P]."""

    def matrix(self, theta_P: Floats, a_NF: Floats, b_MF: Floats) -> Floats:
        """The kernel of each pair of rows; [N, M]."""

    def variance(self, theta_P: Floats, a_NF: Floats) -> Floats:
        """The kernel of each row with itself; [N]."""

    def gradient(self, theta_P: Floats, x_MF: Floats, k_MM: Floats, weights_MM: Floats) -> Floats:
        """Derivatives of sum(``matrix`` * ``weights_MM``) by each parameter, for symmetric weights; ``k_MM`` is the matrix. [P]."""


@dataclass(frozen=True, eq=False)
class Linear(Part):
    """A linear kernel (scaled inner product of features), which extrapolates beyond the known rows."""

    columns: NDArray[np.intp]

    @property
    def start(self) -> Floats:
        return np.zeros(1)

    @property
    def spread(self) -> Floats:
        return np.full(1, _VARIANCE_SPREAD)

    def matrix(self, theta_P: Floats, a_NF: Floats, b_MF: Floats) -> Floats:
        return (a_NF[:, self.columns] * self._weight(theta_P)) @ b_MF[:, self.columns].T

    def variance(self, theta_P: Floats, a_NF: Floats) -> Floats:
        return np.asarray(np.square(a_NF[:, self.columns]).sum(axis=1) * self._weight(theta_P))

    def gradient(self, theta_P: Floats, x_MF: Floats, k_MM: Floats, weights_MM: Floats) -> Floats:
        return np.array([np.vdot(k_MM, weights_MM)])

    def _weight(self, theta_P: Floats) -> float:
        return float(np.exp(theta_P[0])) / len(self.columns)


@dataclass(frozen=True, eq=False)
class Rational(Part):
    """A rational quadratic kernel, variance / (1 + d² / 2): smooth, a mixture of length scales, and cheap, without exponential.

    Attributes:
        columns: indices of its feature columns.
        groups: index of each column's length scale, from 0; columns of one group share it.
    """

    columns: NDArray[np.intp]
    groups: NDArray[np.intp]

    @property
    def start(self) -> Floats:
        # Distances are about the square root of the number of features; at three times that scale the kernel is nearly linear.
        scale = np.log(3 * len(self.columns) ** 0.5)
        return np.concatenate([[0.0], np.full(self.groups.max() + 1, scale)])

    @property
    def spread(self) -> Floats:
        return np.concatenate([[_VARIANCE_SPREAD], np.full(self.groups.max() + 1, _SCALE_SPREAD)])

    def matrix(self, theta_P: Floats, a_NF: Floats, b_MF: Floats) -> Floats:
        right_FM = self.right(theta_P, b_MF)
        return np.asarray(np.exp(theta_P[0]) / (self.left(theta_P, a_NF) @ right_FM))

    def left(self, theta_P: Floats, a_NF: Floats) -> Floats:
        """Left factor: its matrix product with ``right`` is 1 + d² / 2 of every pair; [N, F + 2]."""
        left_NF = np.empty((len(a_NF), len(self.columns) + 2))
        scaled_NF = left_NF[:, :-2]
        np.multiply(a_NF[:, self.columns], np.exp(-theta_P[1:])[self.groups], out=scaled_NF)
        left_NF[:, -2] = 0.5 * np.einsum("nf,nf->n", scaled_NF, scaled_NF)
        left_NF[:, -1] = 1
        return left_NF

    def right(self, theta_P: Floats, b_MF: Floats) -> Floats:
        """Right factor; [F + 2, M]."""
        left_MF = self.left(theta_P, b_MF)
        return np.concatenate([-left_MF[:, :-2].T, left_MF[:, [-1]].T, 1 + left_MF[:, [-2]].T])

    def variance(self, theta_P: Floats, a_NF: Floats) -> Floats:
        return np.full(len(a_NF), np.exp(theta_P[0]))

    def gradient(self, theta_P: Floats, x_MF: Floats, k_MM: Floats, weights_MM: Floats) -> Floats:
        # The derivative by the logarithm of a scale is k²/variance times the group's share of d²; the sum over pairs of a weight
        # times (x - y)² is twice that of its rows times x², less twice that of the products.
        slope_MM = k_MM * k_MM * weights_MM * np.exp(-theta_P[0])
        scaled_MF = x_MF[:, self.columns] * np.exp(-theta_P[1:])[self.groups]
        pairs_F = slope_MM.sum(axis=1) @ np.square(scaled_MF) - np.einsum("mf,mf->f", scaled_MF, slope_MM @ scaled_MF)
        return np.concatenate([[np.vdot(k_MM, weights_MM)], np.bincount(self.groups, 2 * pairs_F, self.groups.max() + 1)])


class Kernel:
    """A sum of parts and noise. Its parameters are the parts' parameters in order, then the logarithm of the noise variance."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part.start) for part in parts])
        self.start = np.concatenate([*(part.start for part in parts), [_NOISE]])
        self.spread = np.concatenate([*(part.spread for part in parts), [_NOISE_SPREAD]])

    def check(self, theta_P: Floats) -> None:
        """Raise ValueError if parameters, for example from a file, are outside the range of ``most_likely``."""
        if theta_P.shape != self.start.shape or not (np.abs(theta_P - self.start) <= _BOUND + _ROUNDING).all():
            raise ValueError(f"{theta_P.size} parameters of a process are not {self.start.size} within {_BOUND:g} of where fitting begins")

    def split(self, theta_P: Floats) -> list[Floats]:
        """The parameters of each part."""
        return np.split(theta_P[:-1], self._ends[:-1])

    def matrix(self, theta_P: Floats, a_NF: Floats, b_MF: Floats) -> Floats:
        """The kernel of each pair of rows, without noise; [N, M]."""
        return np.asarray(sum(part.matrix(own, a_NF, b_MF) for part, own in zip(self.parts, self.split(theta_P), strict=True)))

    def noise(self, theta_P: Floats) -> float:
        """The variance of the noise."""
        return float(np.exp(theta_P[-1])) + _JITTER

    def loss(self, theta_P: Floats, x_MF: Floats, y_M: Floats) -> tuple[float, Floats]:
        """Negative log posterior of the parameters, up to a constant, and its gradient [P]."""
        parts = [part.matrix(own, x_MF, x_MF) for part, own in zip(self.parts, self.split(theta_P), strict=True)]
        k_MM = np.asarray(sum(parts))
        np.fill_diagonal(k_MM, k_MM.diagonal() + self.noise(theta_P))
        lower_MM, failed = dpotrf(k_MM, lower=1)
        if failed:
            return _UNLIKELY, np.zeros_like(theta_P)
        alpha_M = cho_solve((lower_MM, True), y_M, check_finite=False)
        value = 0.5 * y_M @ alpha_M + np.log(lower_MM.diagonal()).sum()
        # The derivative of the loss by an entry of the kernel matrix.
        weights_MM = 0.5 * (_inverse(lower_MM) - np.outer(alpha_M, alpha_M))
        gradients = [
            part.gradient(own, x_MF, part_MM, weights_MM) for part, own, part_MM in zip(self.parts, self.split(theta_P), parts, strict=True)
        ]
        off_P = (theta_P - self.start) / self.spread
        gradient_P = np.concatenate([*gradients, [weights_MM.trace() * np.exp(theta_P[-1])]])
        return float(value + 0.5 * off_P @ off_P), gradient_P + off_P / self.spread


def most_likely(kernel: Kernel, x_MF: Floats, y_M: Floats, start: Floats | None = None) -> Floats:
    """The maximum a posteriori parameters, by optimization from ``start``; deterministic. [P]."""
    bounds = [(value - _BOUND, value + _BOUND) for value in kernel.start]
    first = kernel.start if start is None else start
    found = minimize(kernel.loss, first, args=(x_MF, y_M), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-6})
    return np.asarray(found.x, dtype=np.float64)


class GaussianProcess:
    """A Gaussian process with given parameters, fitted to rows and their values (of mean 0 and standard deviation 1)."""

    def __init__(self, kernel: Kernel, theta_P: Floats, x_MF: Floats, y_M: Floats) -> None:
        self.theta = theta_P
        self._kernel, self._x_MF, self._y_M = kernel, x_MF, y_M
        self._noise = kernel.noise(theta_P)
        k_MM = kernel.matrix(theta_P, x_MF, x_MF)
        np.fill_diagonal(k_MM, k_MM.diagonal() + self._noise)
        self._lower_MM: Floats = np.asarray(np.linalg.cholesky(k_MM), dtype=np.float64)
        self._alpha_M = cho_solve((self._lower_MM, True), y_M)
        self._slope_F = np.zeros(x_MF.shape[1])
        self._rationals: list[tuple[Rational, Floats, Floats, Floats]] = []
        for part, own in zip(kernel.parts, kernel.split(theta_P), strict=True):
            if isinstance(part, Rational):
                self._rationals.append((part, own, part.right(own, x_MF), np.exp(own[0]) * self._alpha_M))
            else:
                # The linear part is kept as its slope: its prediction for each unit vector.
                self._slope_F += part.matrix(own, np.eye(x_MF.shape[1]), x_MF) @ self._alpha_M

    def mean(self, x_NF: Floats) -> Floats:
        """The expected values; [N]."""
        mean_N = x_NF @ self._slope_F
        for start in range(0, len(x_NF), _CHUNK):
            chunk_NF = x_NF[start : start + _CHUNK]
            for part, own, right_FM, weights_M in self._rationals:
                k_NM = part.left(own, chunk_NF) @ right_FM
                np.reciprocal(k_NM, out=k_NM)
                mean_N[start : start + _CHUNK] += k_NM @ weights_M
        return mean_N

    def deviation(self, x_NF: Floats) -> Floats:
        """Predictive standard deviations, with noise; [N]."""
        variance_N = np.empty(len(x_NF))
        for start in range(0, len(x_NF), _CHUNK):
            chunk_NF = x_NF[start : start + _CHUNK]
            k_NM = self._kernel.matrix(self.theta, chunk_NF, self._x_MF)
            known_MN = solve_triangular(self._lower_MM, k_NM.T, lower=True, check_finite=False)
            parts = zip(self._kernel.parts, self._kernel.split(self.theta), strict=True)
            own_N = np.asarray(sum(part.variance(own, chunk_NF) for part, own in parts))
            variance_N[start : start + _CHUNK] = own_N - np.einsum("mn,mn->n", known_MN, known_MN)
        return np.sqrt(np.maximum(variance_N, 0) + self._noise)

    def left_out(self) -> tuple[Floats, Floats]:
        """Leave-one-out predictions of its own rows with the same parameters: means and standard deviations; [M] each."""
        variance_M = 1 / _inverse(self._lower_MM).diagonal()
        return self._y_M - self._alpha_M * variance_M, np.sqrt(variance_M)


def _inverse(lower_MM: Floats) -> Floats:
    """The inverse of a matrix from its Cholesky factor."""
    half_MM, _ = dpotri(lower_MM, lower=1)
    return np.asarray(np.tril(half_MM) + np.tril(half_MM, -1).T)
