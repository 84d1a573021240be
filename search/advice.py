"""What a predictor, a front or an answer is of little use for, as sentences with the next step."""

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
"""Of 90 % intervals, which with few networks hold by chance a few fewer."""
_DEVIATIONS = 4.0
"""Of the accuracy of a network that guesses, up to which the best of a few hundred such networks may come."""
_IMAGES = 1000
"""On which an accuracy was measured, where that is not known."""
_USED = 0.8
"""The share of a budget below which the most that any network uses leaves much of it."""


def is_chance(accuracy: float, classes: int, images: int | None = None) -> bool:
    """Whether the best of some networks that guess could be as accurate.

    Args:
        accuracy: 0..1.
        classes: of the data.
        images: that it was measured on; None if that is not known.
    """
    chance = 1 / classes
    return accuracy <= chance + _DEVIATIONS * math.sqrt(chance * (1 - chance) / (images or _IMAGES))


def advice_on_accuracy(accuracy: float, classes: int, *, what: str, images: int | None = None, metric: str = "accuracy") -> tuple[str, ...]:
    """What to know of an accuracy that a network which guesses would have, too.

    Args:
        accuracy: 0..1.
        classes: of the data.
        what: words for the network.
        images: that it was measured on; None if that is not known.
        metric: what the accuracy is called; of others than ``accuracy`` the number of classes does not tell what chance is.
    """
    if metric != CLASSIFICATION.metric or not is_chance(accuracy, classes, images):
        return ()
    return (f"{what} is right on {accuracy:.1%} of images, and {classes} classes are guessed as well; train the supernet longer",)


def advice_on_predictor(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """What to know before predictions are relied on.

    Args:
        provenance: of a source of accuracies; of one that measures there is nothing to say.
    """
    if provenance.get("source") != "predicted":
        return ()
    # Networks that were chosen near the front are alike; a fair sample says more of the whole space.
    judged = provenance.get("fair_sample") or provenance
    tau, networks, sentences = judged.get("kendall_tau"), provenance.get("networks"), []
    if isinstance(tau, int | float) and tau < _LEAST_KENDALL:
        sentences.append(
            f"the predictor ranks networks that it has not seen with a Kendall tau of {tau:.2f} only, where 1 is right and 0 is chance; "
            "train the supernet longer, or measure more networks with: ofa predictor fit --nets 300"
        )
    if isinstance(networks, int) and networks < _LEAST_NETWORKS:
        sentences.append(
            f"the predictor is fitted to {networks} networks, too few to tell how good it is; measure {_LEAST_NETWORKS} or more, with: "
            "ofa predictor fit --nets 100"
        )
    return tuple(sentences)


def advice_on_losses(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """What to know before predicted losses are relied on.

    Args:
        provenance: of losses.
    """
    images, coverage = provenance.get("judging_images"), provenance.get("coverage")
    sentences = []
    if isinstance(images, int) and images < _IMAGES:
        sentences.append(
            f"losses are measured on {images} images, where one image is {1 / images:.2%} of the score; hold out more of the data"
        )
    if isinstance(coverage, int | float) and coverage < _LEAST_COVERAGE:
        sentences.append(
            f"90 % intervals of losses held only {coverage:.0%} of networks left out; quantize more of them with: "
            "ofa predictor quantization --nets 32"
        )
    return tuple(sentences)


def advice_on_front(front: Front) -> tuple[str, ...]:
    """What to know before the numbers of a front are relied on."""
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
    """What to know where even the most costly networks leave most of a budget: another space could use the rest.

    Args:
        budget: what was asked for.
        columns: of all networks that could be the answer.
        devices: that the columns are of.
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
