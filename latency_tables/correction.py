"""Correction from sums of blocks to whole networks, with a conformal interval, and its fit.

Shape suffixes: N networks, P terms of the correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from latency_tables.robust import fit_relative, jackknife_width
from ofa.arrays import Floats
from ofa.errors import TableError
from ofa.latency import Latency

__all__ = ["COVERAGE", "Correction", "check_enough", "fit_correction"]

Amount = TypeVar("Amount", float, Floats)

COVERAGE = 0.9
"""Nominal coverage of an interval for new networks."""

_MIB = 2**20
_AFFINE = 2
_NETWORKS_PER_TERM = 4
_BETTER = 0.9  # a further term must reduce the leave-one-out error to at most this share
_ITERATIONS = 50


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A correction of the sum of a network's blocks, with the residuals of its fit.

    ``latency = intercept_ms + slope * sum of blocks + ms_per_weight_mib * w + ms_per_weight_mib2 * w^2`` with ``w`` MiB of weights.

    Args:
        intercept_ms: constant cost of a network in ms.
        slope: ratio of a block's latency in a network to its latency alone.
        ms_per_weight_mib: cost of loading weights in ms per MiB: a block that is timed alone has its weights in the processor's cache.
        ms_per_weight_mib2: additional cost of loading weights as the cache holds a smaller share of them, in ms per MiB².
        half_width: half width of the interval, as a share of the latency.
        coverage: nominal coverage of the interval for new networks.
        nets: number of networks that it was fitted to.
        residuals: leave-one-out relative residuals of these networks, ascending by magnitude; ``half_width`` is their quantile plus
            ``speed_spread``.
        speed: typical latency of the machine relative to when the blocks were timed (above 1: slower); contained in the correction.
        speed_spread: largest relative deviation from the typical speed among the processes that timed the networks.
    """

    intercept_ms: float
    slope: float
    ms_per_weight_mib: float = 0.0
    ms_per_weight_mib2: float = 0.0
    half_width: float
    coverage: float
    nets: int
    residuals: tuple[float, ...] = ()
    speed: float = 1.0
    speed_spread: float = 0.0

    def apply(self, sum_ms: float, weight_bytes: float) -> Latency:
        """The latency of a network with the sum of blocks ``sum_ms`` and ``weight_bytes`` bytes of weights."""
        latency_ms = float(self.intercept_ms + self.of_block(sum_ms, weight_bytes) + self.beyond_blocks(weight_bytes))
        low_ms, high_ms = latency_ms * (1 - self.half_width), latency_ms * (1 + self.half_width)
        return Latency(latency_ms=latency_ms, latency_low_ms=low_ms, latency_high_ms=high_ms)

    def of_block(self, ms: Amount, weight_bytes: Amount) -> Amount:
        """The contribution of blocks to the latency of a network in ms, from their ``ms`` and ``weight_bytes``; additive over blocks."""
        added: Amount = self.slope * ms + self.ms_per_weight_mib * weight_bytes / _MIB
        return added

    def beyond_blocks(self, weight_bytes: Amount) -> Amount:
        """The part of the latency in ms that is not additive over blocks: the quadratic term of the weights."""
        beyond: Amount = self.ms_per_weight_mib2 * (weight_bytes / _MIB) ** 2
        return beyond


def fit_correction(
    sums_ms: Sequence[float],
    weight_bytes: Sequence[float],
    measured_ms: Sequence[float],
    *,
    coverage: float = COVERAGE,
    speed: float = 1.0,
    speed_spread: float = 0.0,
) -> Correction:
    """Fit a correction to networks, robust to disturbed measurements.

    The correction is affine in the sum. Terms of the weights are added if they clearly improve leave-one-out predictions. It is fitted to
    relative errors with Huber's loss.

    The interval is the conformal quantile of leave-one-out relative residuals: the jackknife of Barber et al., Annals of Statistics 2021,
    with a single final fit. The spread of the machine's speed between processes is added, because a network will run in one process. It
    is not averaged in: it shifts all networks of a process together.

    Args:
        sums_ms: sum of the blocks' latencies of each network.
        weight_bytes: bytes of weights of each network.
        measured_ms: measured latency of each network.
        coverage: nominal coverage of the interval for new networks (0..1).
        speed: ``Correction.speed``.
        speed_spread: ``Correction.speed_spread``.

    Returns:
        The correction.

    Raises:
        TableError: too few networks for this coverage.
    """
    check_enough(len(measured_ms), coverage)
    y_N = np.asarray(measured_ms, dtype=np.float64)
    weights_N = np.asarray(weight_bytes, np.float64) / _MIB
    terms_NP, residuals_N = _chosen(np.stack([np.ones_like(y_N), np.asarray(sums_ms, np.float64), weights_N, weights_N**2], axis=1), y_N)
    coefficients = [*_fit(terms_NP, y_N).tolist(), 0.0, 0.0]
    residuals = sorted(residuals_N.tolist(), key=abs)
    return Correction(
        intercept_ms=coefficients[0],
        slope=coefficients[1],
        ms_per_weight_mib=coefficients[2],
        ms_per_weight_mib2=coefficients[3],
        half_width=jackknife_width(residuals_N, coverage) + speed_spread,
        coverage=coverage,
        nets=len(y_N),
        residuals=tuple(residuals),
        speed=speed,
        speed_spread=speed_spread,
    )


def check_enough(nets: int, coverage: float = COVERAGE) -> None:
    """Check that there are enough networks for a conformal interval.

    Raises:
        TableError: there are too few.
    """
    least = math.ceil(round(coverage / (1 - coverage), 9))
    if nets < least:
        raise TableError(f"a {coverage:.0%} interval needs at least {least} networks, but there are {nets}; time more of them")


def _chosen(terms_NP: Floats, y_N: Floats) -> tuple[Floats, Floats]:
    """The first terms, as many as leave-one-out errors justify (at least two), and their leave-one-out residuals."""
    count, residuals_N = _AFFINE, _left_out_residuals(terms_NP[:, :_AFFINE], y_N)
    # Choosing terms by their residuals biases the residuals downwards (selection bias), the more the fewer networks there are.
    most = min(terms_NP.shape[1], max(_AFFINE + 1, len(y_N) // _NETWORKS_PER_TERM))
    for more in range(_AFFINE + 1, most + 1):
        found_N = _left_out_residuals(terms_NP[:, :more], y_N)
        if float(np.abs(found_N).mean()) < _BETTER * float(np.abs(residuals_N).mean()):
            count, residuals_N = more, found_N
    return terms_NP[:, :count], residuals_N


def _left_out_residuals(terms_NP: Floats, y_N: Floats) -> Floats:
    """Leave-one-out relative residuals; [N]."""
    others = ~np.eye(len(y_N), dtype=bool)
    predicted = [terms_NP[i] @ _fit(terms_NP[others[i]], y_N[others[i]]) for i in range(len(y_N))]
    residuals_N: Floats = y_N / np.asarray(predicted) - 1
    return residuals_N


def _fit(terms_NP: Floats, y_N: Floats) -> Floats:
    def solve(weighted_NP: Floats, target_N: Floats) -> Floats:
        return np.asarray(np.linalg.lstsq(weighted_NP, target_N, rcond=None)[0], dtype=np.float64)

    return fit_relative(terms_NP, y_N, solve, iterations=_ITERATIONS)
