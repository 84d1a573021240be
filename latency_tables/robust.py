"""Robust fits of relative errors, and the width of jackknife intervals.

Shape suffixes: N networks, T terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ofa.arrays import Floats

__all__ = ["fit_relative", "jackknife_width"]


_HUBER = 1.345
_MAD_OF_NORMAL = 0.6745
_CONVERGED = 1e-5


def fit_relative(terms_NT: Floats, measured_N: Floats, solve: Callable[[Floats, Floats], Floats], *, iterations: int) -> Floats:
    """Coefficients [T] that minimize Huber's loss of relative errors, by iteratively reweighted least squares.

    Args:
        terms_NT: amount of each term in each network.
        measured_N: measured latency of each network.
        solve: least-squares solver of one round: coefficients for a weighted matrix [N, T] and its target [N].
        iterations: upper limit of the number of rounds.
    """
    relative_NT = terms_NT / measured_N[:, None]
    weights_N = np.ones(len(measured_N))
    coefficients_T: Floats = np.zeros(terms_NT.shape[1])
    for _ in range(iterations):
        root_N, before_T = np.sqrt(weights_N), coefficients_T
        coefficients_T = solve(relative_NT * root_N[:, None], root_N)
        if np.abs(relative_NT @ (coefficients_T - before_T)).max() <= _CONVERGED:
            break
        errors_N = np.abs(relative_NT @ coefficients_T - 1)
        scale = float(np.median(errors_N)) / _MAD_OF_NORMAL
        if scale <= 1e-12:  # most residuals are zero: there is no scale for weights
            break
        weights_N = np.minimum(1.0, _HUBER * scale / np.maximum(errors_N, 1e-300))
    return coefficients_T


def jackknife_width(residuals_N: Floats, coverage: float) -> float:
    """Half width of an interval with that coverage: the conformal quantile of leave-one-out residuals, at most the largest."""
    sizes_N = np.sort(np.abs(residuals_N))
    rank = math.ceil(round(coverage * (len(sizes_N) + 1), 9))
    return float(sizes_N[min(rank, len(sizes_N)) - 1])
