"""From blocks to the whole network: a correction with an interval, as stored in a table, and how it is fitted.

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
"""Share of networks not seen that an interval holds."""

_MIB = 2**20
_AFFINE = 2
_NETWORKS_PER_TERM = 4
_BETTER = 0.9  # a further term must leave at most this share of the error without it
_ITERATIONS = 50


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What the sum of a network's blocks is corrected by, and how far networks were from it.

    ``latency = intercept_ms + slope * sum of blocks + ms_per_weight_mib * w + ms_per_weight_mib2 * w^2`` with ``w`` MiB of weights.

    Args:
        intercept_ms: what a network costs beyond its blocks.
        slope: how blocks in a network compare to blocks alone.
        ms_per_weight_mib: what fetching weights costs: a block that is timed alone finds its own in the processor's cache.
        ms_per_weight_mib2: what fetching them costs more, the less of them a cache holds.
        half_width: half of the interval, as a share of the latency.
        coverage: share of networks not seen that the interval holds.
        nets: whole networks that it was learned from.
        residuals: their relative residuals when left out, ascending by size: what ``half_width`` was taken from, and from
            ``speed_spread``.
        speed: how much slower the machine is typically than when the blocks were timed; the correction contains it.
        speed_spread: how far, as a share, its speed was from that in some of the processes that timed networks.
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
        """The estimate for a network whose blocks sum to ``sum_ms`` and to ``weight_bytes``."""
        latency_ms = float(self.intercept_ms + self.of_block(sum_ms, weight_bytes) + self.beyond_blocks(weight_bytes))
        low_ms, high_ms = latency_ms * (1 - self.half_width), latency_ms * (1 + self.half_width)
        return Latency(latency_ms=latency_ms, latency_low_ms=low_ms, latency_high_ms=high_ms)

    def of_block(self, ms: Amount, weight_bytes: Amount) -> Amount:
        """What blocks of so many ms and bytes add to the latency of a network; this part is a sum over blocks."""
        added: Amount = self.slope * ms + self.ms_per_weight_mib * weight_bytes / _MIB
        return added

    def beyond_blocks(self, weight_bytes: Amount) -> Amount:
        """What a network of so many bytes of weights takes beyond the intercept and the sum over its blocks."""
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
    """Learn a correction from networks, robust to some that were disturbed.

    Affine in the sum; the terms of the weights come in if they predict networks left out clearly better. Fitted to relative errors with
    Huber's loss. The interval is the conformal quantile of the relative residuals that each network has when the map is fitted without
    it (the jackknife of Barber et al., Annals of Statistics 2021, with one map in place of all), widened by how much the machine's
    speed differs from process to process, as the network will be used in one process. The two are added: a speed is that of all
    networks of a process, so that no average over them makes it smaller.

    Args:
        sums_ms: sums of the blocks' latencies of each network.
        weight_bytes: bytes of weights of each.
        measured_ms: what each took.
        coverage: share of networks not seen that the interval is to hold.
        speed: as of ``Correction``.
        speed_spread: as of ``Correction``.

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
    """Hold a number of networks against what an interval needs.

    Raises:
        TableError: so few cannot give an honest interval.
    """
    least = math.ceil(round(coverage / (1 - coverage), 9))
    if nets < least:
        raise TableError(f"a {coverage:.0%} interval needs at least {least} networks, but there are {nets}; time more of them")


def _chosen(terms_NP: Floats, y_N: Floats) -> tuple[Floats, Floats]:
    """The first terms, as many as networks left out ask for, at least two; and the residuals of these."""
    count, residuals_N = _AFFINE, _left_out_residuals(terms_NP[:, :_AFFINE], y_N)
    # The choice itself makes residuals look smaller than they are, the more so the fewer networks there are.
    most = min(terms_NP.shape[1], max(_AFFINE + 1, len(y_N) // _NETWORKS_PER_TERM))
    for more in range(_AFFINE + 1, most + 1):
        found_N = _left_out_residuals(terms_NP[:, :more], y_N)
        if float(np.abs(found_N).mean()) < _BETTER * float(np.abs(residuals_N).mean()):
            count, residuals_N = more, found_N
    return terms_NP[:, :count], residuals_N


def _left_out_residuals(terms_NP: Floats, y_N: Floats) -> Floats:
    """Relative residual of each network under the map of all others."""
    others = ~np.eye(len(y_N), dtype=bool)
    predicted = [terms_NP[i] @ _fit(terms_NP[others[i]], y_N[others[i]]) for i in range(len(y_N))]
    residuals_N: Floats = y_N / np.asarray(predicted) - 1
    return residuals_N


def _fit(terms_NP: Floats, y_N: Floats) -> Floats:
    def solve(weighted_NP: Floats, target_N: Floats) -> Floats:
        return np.asarray(np.linalg.lstsq(weighted_NP, target_N, rcond=None)[0], dtype=np.float64)

    return fit_relative(terms_NP, y_N, solve, iterations=_ITERATIONS)
