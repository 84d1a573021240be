"""Warnings about weak predictors, fronts and answers, as sentences with the next step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latency_tables.advice import advice_on_table
from ofa.tasks import CLASSIFICATION
from search.budget import Budget, Columns
from search.front.front import Front
from search.units import called, typed

__all__ = ["advice_on_accuracy", "advice_on_budget", "advice_on_front", "advice_on_losses", "advice_on_predictor", "is_chance"]

_LEAST_KENDALL = 0.5
_LEAST_NETWORKS = 30
_LEAST_COVERAGE = 0.75
"""Lowest accepted coverage of 90 % intervals; with few networks it falls somewhat below 90 % by chance."""
_DEVIATIONS = 4.0
"""Standard deviations above chance that the best of a few hundred guessing networks may reach."""
_IMAGES = 1000
"""Assumed number of images behind an accuracy where it is not known."""
_USED = 0.8
"""Warn if even the most costly network uses less than this share of the budget."""


def is_chance(accuracy: float, classes: int, images: int | None = None) -> bool:
    """Whether an accuracy is within the range of the best of a few hundred guessing networks.

    Args:
        accuracy: 0..1.
        classes: number of classes of the data.
        images: number of images that it was measured on; None if not known.
    """
    chance = 1 / classes
    return accuracy <= chance + _DEVIATIONS * math.sqrt(chance * (1 - chance) / (images or _IMAGES))


def advice_on_accuracy(accuracy: float, classes: int, *, what: str, images: int | None = None, metric: str = "accuracy") -> tuple[str, ...]:
    """A warning if an accuracy is no better than chance.

    Args:
        accuracy: 0..1.
        classes: number of classes of the data.
        what: words for the network.
        images: number of images that it was measured on; None if not known.
        metric: name of the score. There is no warning for scores other than ``accuracy``: their chance level does not follow from the
            number of classes.
    """
    if metric != CLASSIFICATION.metric or not is_chance(accuracy, classes, images):
        return ()
    return (f"{what} is right on {accuracy:.1%} of images, no better than guessing among {classes} classes; train the supernet longer",)


def advice_on_predictor(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings about a predictor that ranks badly or is fitted to few networks.

    Args:
        provenance: provenance of an accuracy source; a measuring source gets no warnings.
    """
    if provenance.get("source") != "predicted":
        return ()
    # Networks that active learning chose near the front are similar; the fair sample represents the whole space.
    judged = provenance.get("fair_sample") or provenance
    tau, networks, sentences = judged.get("kendall_tau"), provenance.get("networks"), []
    if isinstance(tau, int | float) and tau < _LEAST_KENDALL:
        sentences.append(
            f"the predictor ranks unseen networks with a Kendall tau of only {tau:.2f}, where 1 is perfect and 0 is chance; "
            "train the supernet longer, or measure more networks with: ofa predictor fit --nets 300"
        )
    if isinstance(networks, int) and networks < _LEAST_NETWORKS:
        sentences.append(
            f"the predictor is fitted to {networks} networks, too few to judge its quality; measure {_LEAST_NETWORKS} or more, with: "
            "ofa predictor fit --nets 100"
        )
    return tuple(sentences)


def advice_on_losses(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings about quantization losses that were measured on few images, or whose intervals are too narrow.

    Args:
        provenance: provenance of a loss source.
    """
    images, coverage = provenance.get("judging_images"), provenance.get("coverage")
    sentences = []
    if isinstance(images, int) and images < _IMAGES:
        sentences.append(
            f"losses are measured on {images} images, where one image is {1 / images:.2%} of the score; hold out more of the data"
        )
    if isinstance(coverage, int | float) and coverage < _LEAST_COVERAGE:
        sentences.append(
            f"90 % intervals of quantization losses cover only {coverage:.0%} of left-out networks; quantize more networks with: "
            "ofa predictor quantization --nets 32"
        )
    return tuple(sentences)


def advice_on_front(front: Front) -> tuple[str, ...]:
    """All warnings about the accuracies, losses and latency tables of a front."""
    info = front.info
    sentences = list(advice_on_predictor(info.accuracy))
    for losses in info.accuracy.get("losses", {}).values():
        sentences += advice_on_losses(losses)
    if info.num_classes is not None:
        best = float(front.columns["accuracy"].max())
        sentences += advice_on_accuracy(best, info.num_classes, what="the most accurate network of the front", metric=info.metric)
    for each in info.latency.values():
        sentences += advice_on_table(each)
    return tuple(sentences)


def advice_on_budget(budget: Budget, columns: Columns, devices: tuple[str, ...]) -> tuple[str, ...]:
    """A warning if even the most costly network uses little of the budget: a larger space could use the rest.

    Args:
        budget: the budget.
        columns: columns of all networks of the front.
        devices: names of the devices in the columns.
    """
    used = []
    for limit in budget.limits(devices):
        if limit.sign > 0 and limit.column in columns and limit.column != "accuracy":
            most = float(columns[limit.column].max())
            used.append((most / limit.limit, most, limit))
    if not used or max(share for share, _, _ in used) >= _USED:
        return ()
    _, most, limit = max(used, key=lambda each: each[0])
    return (
        f"no network of the front uses the budget: the most costly one has {called(limit.name)} {typed(limit.column, most, up=True)} of "
        f"{typed(limit.column, limit.limit)}; a larger space or resolution could use the rest for accuracy",
    )
