"""The page of a training run: loss, accuracies, speed and recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ofa.training.metrics import EpochMetrics
from search.front.columns import figures
from search.report.adopted import SECTION, adopted_of
from search.report.charts import axis, chart, layer
from search.report.page import Page
from search.report.provenance import groups_of, rows_of
from search.report.training import RunRecord

__all__ = ["run_charts", "run_page"]

_SECTIONS = (("training", "Training"), ("phases", "Phases"), ("provenance", "Recipe"))
_STYLES = 7
_NETWORKS = (("largest", "s0"), ("middle", "s1"), ("smallest", "s3"))
Json = dict[str, Any]


def run_page(run: RunRecord, *, title: str | None = None) -> Page:
    """The page of a finished or unfinished run.

    Args:
        run: the run.
        title: title of the page; None for its space and data.
    """
    charts, adopted = run_charts(run.epochs, run.metric), adopted_of(run.space, run.adoption)
    return Page(
        template="run.html",
        title=title or f"Training of {run.recipe.get('space', 'a supernet')} on {run.recipe.get('data', 'data')}",
        facts=_facts(run),
        sections=_SECTIONS if adopted is None else (*_SECTIONS[:-1], SECTION, _SECTIONS[-1]),
        data={"kind": "run", "charts": charts},
        content={
            "charts": charts,
            "phases": _phases(run.epochs),
            "adopted": adopted,
            "groups": _recipe(run.recipe),
            "command": None,
        },
    )


def run_charts(epochs: Sequence[EpochMetrics], metric: str = "accuracy") -> dict[str, Json]:
    """Charts of loss, accuracies (named by their metric), learning rate and images per second by epoch; empty without epochs."""
    if not epochs:
        return {}
    x = axis("epoch of the run")
    at = np.arange(1, len(epochs) + 1)
    training = _line(at, [epoch.accuracy for epoch in epochs], epochs, "sampled networks, on training images", "grey", percent=True)
    evaluated = [each for name, style in _NETWORKS for each in _evaluated(epochs, name, style)]
    return {
        "loss": _loss_chart(epochs, x),
        "accuracy": chart(metric[0].upper() + metric[1:], x, axis(metric, "%", scale=0.01), [training, *evaluated]),
        "rate": chart("Learning rate", x, axis("learning rate", zero=True), _by_phase(epochs, "learning_rate")),
        "speed": chart("Speed", x, axis("training images a second", zero=True), _by_phase(epochs, "images_per_s")),
    }


def _loss_chart(epochs: Sequence[EpochMetrics], x: Any) -> Json:
    """Cross entropy of the labels, which compares with guessing; for runs without it, the training loss."""
    if any(epoch.cross_entropy is None for epoch in epochs):
        return chart("Loss", x, axis("mean loss"), _by_phase(epochs, "loss"))
    return chart("Cross entropy", x, axis("cross entropy (nats)"), _by_phase(epochs, "cross_entropy"))


def _line(at: Any, values: Sequence[float], epochs: Sequence[EpochMetrics], words: str, style: str, *, percent: bool = False) -> Json:
    texts = [
        f"{epoch.phase}, epoch {epoch.epoch} of {epoch.epochs}\n{words}: {f'{100 * value:.1f} %' if percent else figures(value, 4)}"
        for epoch, value in zip(epochs, values, strict=True)
    ]
    return layer("line", at, values, words=words, style=style, texts=texts)


def _evaluated(epochs: Sequence[EpochMetrics], name: str, style: str) -> list[Json]:
    """Accuracies of one network, at the epochs after which it was evaluated."""
    known = [(at, epoch) for at, epoch in enumerate(epochs, start=1) if getattr(epoch, f"{name}_accuracy") is not None]
    if not known:
        return []
    at, after = [at for at, _ in known], [epoch for _, epoch in known]
    values = [float(getattr(epoch, f"{name}_accuracy")) for epoch in after]
    line = _line(at, values, after, f"{name} network, calibrated, on images not trained on", style, percent=True)
    return [line, layer("dots", at, values, style=style, hover=False)]


def _by_phase(epochs: Sequence[EpochMetrics], field: str) -> list[Json]:
    layers, start = [], 0
    for number, (phase, members) in enumerate(groupby(epochs, key=lambda epoch: epoch.phase)):
        group = list(members)
        at = np.arange(start + 1, start + len(group) + 1)
        values = [float(getattr(epoch, field)) for epoch in group]
        layers.append(_line(at, values, group, f"phase {phase}", f"s{number % _STYLES}"))
        start += len(group)
    return layers


def _facts(run: RunRecord) -> tuple[tuple[str, str], ...]:
    epochs = run.epochs
    seconds = sum(epoch.duration_s for epoch in epochs)
    speed = float(np.median([epoch.images_per_s for epoch in epochs])) if epochs else float("nan")
    cross_entropy = epochs[-1].cross_entropy if epochs else None
    best = [epoch.largest_accuracy for epoch in epochs if epoch.largest_accuracy is not None]
    facts = [
        ("epochs", f"{len(epochs)}" if run.ended else f"{len(epochs)} so far, the run has not ended"),
        ("damaged", f"{run.damaged} lines of the metrics, left out" if run.damaged else ""),
        ("last cross entropy", figures(cross_entropy) if cross_entropy is not None else ""),
        ("last loss", figures(epochs[-1].loss) if epochs and cross_entropy is None else ""),
        ("largest network", f"{100 * best[-1]:.1f} %" if best else ""),
        ("training took", _duration(seconds) if epochs else ""),
        ("speed", f"{speed:,.0f} images/s" if epochs else ""),
    ]
    return tuple((name, text) for name, text in facts if text)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _phases(epochs: Sequence[EpochMetrics]) -> list[tuple[str, ...]]:
    rows = []
    for phase, members in groupby(epochs, key=lambda epoch: epoch.phase):
        group = list(members)
        last = group[-1]
        evaluated = (last.smallest_accuracy, last.middle_accuracy, last.largest_accuracy)
        shares = ["" if value is None else f"{100 * value:.1f} %" for value in evaluated]
        seconds = sum(epoch.duration_s for epoch in group)
        waiting = sum(epoch.waiting_s for epoch in group) / seconds if seconds else 0.0
        speed = float(np.median([epoch.images_per_s for epoch in group]))
        rows.append((phase, str(len(group)), figures(last.loss), *shares, _duration(seconds), f"{speed:,.0f}", f"{waiting:.0%}"))
    return rows


def _recipe(recipe: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    phases = recipe.get("phases", [])
    groups = groups_of({key: value for key, value in recipe.items() if key != "phases"}, "Recipe")
    for number, phase in enumerate(phases if isinstance(phases, list) else [], start=1):
        groups.append((f"Phase {number}, {phase.get('name', '')}".rstrip(", "), rows_of(phase)))
    return [(title[:1].upper() + title[1:], rows) for title, rows in groups]
