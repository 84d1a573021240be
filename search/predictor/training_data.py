"""Checks and deduplication of measured networks before a fit.

Shapes: M networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa.arch import Arch
from ofa.arrays import Bools, Floats
from ofa.errors import SearchError

__all__ = ["LEAST_NETWORKS", "check_measured", "distinct"]

LEAST_NETWORKS = 10
"""Smallest number of networks to fit a predictor to, or to judge it by."""
_GOOD = 0.9
"""If all accuracies are equal and above this one, the networks are good; otherwise they have hardly learned."""


def check_measured(archs: Sequence[Arch], accuracies: Floats) -> None:
    """Raise SearchError if there are too few networks, or accuracies are outside 0..1 or all equal."""
    if accuracies.shape != (len(archs),):
        raise SearchError(f"each network needs one accuracy, but {len(archs)} networks come with {accuracies.shape}; give as many of both")
    if (count := len(set(archs))) < LEAST_NETWORKS:
        raise SearchError(f"a predictor needs at least {LEAST_NETWORKS} networks, but got {count}; measure more, 100 is a good start")
    wrong = accuracies[~((accuracies >= 0) & (accuracies <= 1))]
    if len(wrong):
        raise SearchError(f"accuracies must be numbers in 0..1, but one is {wrong[0]}; divide percentages by 100")
    if np.ptp(accuracies) == 0:
        # Equal high accuracies need a finer measurement; equal low ones mean that the supernet has hardly learned.
        step = "select on more images, or search with --supernet, which finds the cheapest" if accuracies[0] > _GOOD else "train for longer"
        raise SearchError(f"a predictor needs networks of different accuracy, but all {len(archs)} have {accuracies[0]:.1%}; {step}")


def distinct(archs: Sequence[Arch], accuracies: Floats, fair_M: Bools) -> tuple[list[Arch], Floats, Bools]:
    """The networks without duplicates, with their mean accuracies; a network is fair if any of its copies is.

    A duplicate in another fold would leak a network into its own prediction.
    """
    index = {arch: number for number, arch in enumerate(dict.fromkeys(archs))}
    which = np.array([index[arch] for arch in archs])
    return list(index), np.bincount(which, accuracies) / np.bincount(which), np.bincount(which, fair_M) > 0
