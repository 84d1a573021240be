"""Cross-validated quality of a predictor.

Shapes: M networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from ofa.arrays import Bools, Floats
from search.predictor.ensemble import LeftOut

__all__ = ["Trust", "interval_width", "trust_of"]

_SHARE = 0.9
"""Nominal coverage of the intervals."""


@dataclass(frozen=True)
class Trust:
    """Quality of predictions for left-out networks, by cross-validation.

    Attributes:
        networks: number of networks.
        kendall_tau: rank correlation of predicted and measured accuracies (-1..1).
        rmse: root mean squared error of the accuracy (0..1).
        coverage: share of networks inside their 90 % interval, with the width from the networks of the other folds.
        half_width: mean half width of the 90 % intervals (0..1).
    """

    networks: int
    kendall_tau: float
    rmse: float
    coverage: float
    half_width: float


def trust_of(left_out: LeftOut, accuracy_M: Floats, counted_M: Bools) -> Trust:
    """Quality of left-out predictions, on the counted networks."""
    inside_M = np.empty(len(accuracy_M), dtype=np.bool_)
    for fold in np.unique(left_out.fold):
        out_M = left_out.fold == fold
        inside_M[out_M] = left_out.score[out_M] <= interval_width(left_out.score[~out_M])
    expected_M, measured_M = left_out.accuracy[counted_M], accuracy_M[counted_M]
    return Trust(
        networks=int(counted_M.sum()),
        kendall_tau=_kendall_tau(expected_M, measured_M),
        rmse=float(np.sqrt(np.mean(np.square(expected_M - measured_M)))),
        coverage=float(inside_M[counted_M].mean()),
        half_width=min(1.0, float(interval_width(left_out.score) * left_out.deviation[counted_M].mean())),
    )


def interval_width(score_M: Floats) -> float:
    """Half width of a 90 % interval in standard deviations, from the scores of M left-out networks.

    It is the conformal quantile: a new network is as likely as any other to have the largest score, so ranks count among M + 1.
    """
    rank = min(len(score_M), int(np.ceil(_SHARE * (len(score_M) + 1))))
    return float(np.sort(score_M)[rank - 1])


def _kendall_tau(predicted: Floats, given: Floats) -> float:
    """Kendall's tau-b; 0 if all predictions or all accuracies are equal, which rank nothing."""
    return 0.0 if np.ptp(predicted) == 0 or np.ptp(given) == 0 else float(kendalltau(predicted, given).statistic)
