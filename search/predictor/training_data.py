"""Measured networks, made ready to fit to.

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
"""Fewest networks to fit to, or to judge a predictor by."""
_GOOD = 0.9
"""Above this accuracy, equal networks are good networks."""


def check_measured(archs: Sequence[Arch], accuracies: Floats) -> None:
    """Raise SearchError where networks are too few, or their accuracies are no numbers in 0..1 or all equal."""
    if accuracies.shape != (len(archs),):
        raise SearchError(f"each network needs one accuracy, but {len(archs)} networks come with {accuracies.shape}; give as many of both")
    if (count := len(set(archs))) < LEAST_NETWORKS:
        raise SearchError(f"a predictor needs at least {LEAST_NETWORKS} networks, but got {count}; measure more, 100 is a good start")
    wrong = accuracies[~((accuracies >= 0) & (accuracies <= 1))]
    if len(wrong):
        raise SearchError(f"accuracies must be numbers in 0..1, but one is {wrong[0]}; divide percentages by 100")
    if np.ptp(accuracies) == 0:
        # What is right on every image is as good as can be told; what is wrong alike has hardly learned.
        step = "select on more images, or search with --supernet, which finds the cheapest" if accuracies[0] > _GOOD else "train for longer"
        raise SearchError(
            f"a predictor learns from differences, but all {len(archs)} networks have an accuracy of {accuracies[0]:.1%}; {step}"
        )


def distinct(archs: Sequence[Arch], accuracies: Floats, fair_M: Bools) -> tuple[list[Arch], Floats, Bools]:
    """Each network once, with the mean of its accuracies; fair if it came as one of the fair sample.

    A network in two folds would be predicted from itself.
    """
    index = {arch: number for number, arch in enumerate(dict.fromkeys(archs))}
    which = np.array([index[arch] for arch in archs])
    return list(index), np.bincount(which, accuracies) / np.bincount(which), np.bincount(which, fair_M) > 0
