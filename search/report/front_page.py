"""The page of a front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa.arch import Arch
from ofa.schema import to_json
from ofa.space import Space
from search.front.columns import Quantity, best_along, costs_of_front, figures, floats_of
from search.report.adopted import SECTION, adopted_of
from search.report.charts import axis, chart, layer, numbers
from search.report.drawing import drawings
from search.report.genes import LEAST_NETWORKS, Effects, main_effects, trends
from search.report.heat import HeatMap, heat_map
from search.report.measured import residuals_of, verified_of
from search.report.measured_charts import measured_chart, residuals_chart, summary_of
from search.report.page import Page
from search.report.provenance import groups_of, rows_of

if TYPE_CHECKING:
    from ofa.arrays import Floats
    from search.front.front import Front
    from search.front.info import FrontInfo

__all__ = ["effects_of", "front_page", "heat_maps"]

_CHOSEN = 5
"""Number of networks that are always drawn: at the quantiles of the front."""

_SECTIONS = (
    ("pick", "Pick a network"),
    ("costs", "Every cost"),
    ("measured", "Predicted and measured"),
    ("genes", "Genes"),
    ("networks", "Five networks"),
    ("provenance", "Provenance"),
)
_NEXT = "ofa specialize RUN --arch arch.json -o network.bundle"
"""The next command for an arch that the user saved from the page."""
_APART = ("latency", "budget", "least", "verified", "space", "devices")


def front_page(front: Front, *, title: str | None = None) -> Page:
    """The page of a front.

    Args:
        front: the front.
        title: title of the page; None for the space and the devices.

    Raises:
        SpaceError: the space of the front is unknown here, or its class has not been imported.
        ArchError: a network is not of that space.
    """
    networks, info = front.networks, front.info
    space, adopted = front.space, adopted_of(front.space)
    archs = [Arch.from_text(text) for text in networks["arch"]]
    costs = costs_of_front(networks, info)
    compared = verified_of(info)
    left = tuple(filter(None, map(residuals_of, info.latency.values())))
    charts = {f"measured-{i}": measured_chart(each) for i, each in enumerate(compared)}
    charts |= {f"residuals-{i}": residuals_chart(each) for i, each in enumerate(left)}
    charts |= {f"trend-{i}": each for i, each in enumerate(_trend_charts(space, archs, front, costs[0]))}
    data = {
        "kind": "front",
        "known": front.info.accuracy_source,
        "metric": front.info.metric,
        "next": _NEXT,
        "costs": [_cost_json(cost) for cost in costs],
        "networks": _columns(front.networks, costs, intervals=True),
        "dominated": _columns(front.dominated, costs, intervals=False),
        "drawings": drawings(space, archs),
        "precisions": list(front.precisions) or None,
        "chosen": _chosen(front, costs[0]),
        "charts": charts,
    }
    where = f" on {', '.join(info.devices)}" if info.devices else ""
    return Page(
        template="front.html",
        title=title or f"{space.name}{where}",
        facts=_facts(front, costs),
        sections=_SECTIONS if adopted is None else (*_SECTIONS[:-1], SECTION, _SECTIONS[-1]),
        data=data,
        content={
            "costs": costs,
            "charts": charts,
            "compared": compared,
            "left": left,
            "maps": heat_maps(front),
            "first": costs[0],
            "adopted": adopted,
            "least_networks": LEAST_NETWORKS,
            "groups": _provenance(info),
            "command": info.command,
            "summaries": [summary_of(each) for each in compared],
        },
    )


def _cost_json(cost: Quantity) -> dict[str, Any]:
    return {"key": cost.key, "words": cost.words, "unit": cost.unit, "scale": cost.scale, "low": cost.low, "high": cost.high}


def _columns(frame: Any, costs: Sequence[Quantity], *, intervals: bool) -> dict[str, list[float | int | None]]:
    names = ["accuracy", *(cost.key for cost in costs)]
    if intervals:
        names += ["accuracy_low", "accuracy_high", *(end for cost in costs for end in (cost.low, cost.high) if end is not None)]
    found = {name: floats_of(frame, name) for name in names}
    return {name: numbers(values) for name, values in found.items() if np.isfinite(values).any()}


def _chosen(front: Front, cost: Quantity) -> list[int]:
    """The rows of networks at the quantiles of the staircase along the first cost."""
    values, accuracy = floats_of(front.networks, cost.key), floats_of(front.networks, "accuracy")
    best = best_along(values, accuracy)
    places = np.linspace(0, len(best) - 1, min(_CHOSEN, len(best))).round().astype(int)
    return [int(best[place]) for place in dict.fromkeys(places.tolist())]


def _facts(front: Front, costs: Sequence[Quantity]) -> tuple[tuple[str, str], ...]:
    """Facts at the head of the page: number of networks, and ranges of accuracy and costs."""
    info, networks = front.info, front.networks
    accuracy = 100 * floats_of(networks, "accuracy")
    among = "" if info.evaluated is None else f" of {info.evaluated:,} evaluated"
    facts = [("networks", f"{len(networks):,}{among}"), (info.accuracy_words, f"{accuracy.min():.1f} .. {accuracy.max():.1f} %")]
    for cost in costs[:3]:
        values = floats_of(networks, cost.key) / cost.scale
        facts.append((cost.words, f"{figures(np.nanmin(values))} .. {figures(np.nanmax(values))} {cost.unit}".rstrip()))
    if front.precisions:
        facts.append(("precisions", ", ".join(f"{front.precisions.count(name)} in {name}" for name in dict.fromkeys(front.precisions))))
    facts += [(f"conditions on {name}", each.words) for name, each in front.conditions.items()]
    facts.append(("searched", info.date[:10]))
    return tuple((name, text) for name, text in facts if text)


# -- genes ------------------------------------------------------------------------------------------------------------


def effects_of(front: Front, column: str) -> Effects | None:
    """Main effects of the genes on a column of the front; None with fewer than 30 networks, or if nothing differs."""
    space = front.space
    archs = [Arch.from_text(text) for text in front.networks["arch"]]
    return main_effects(space, space.encode_all(archs), floats_of(front.networks, column))


def heat_maps(front: Front) -> tuple[HeatMap, ...]:
    """Main effects of the genes on accuracy and on the first cost; empty with too few networks."""
    space = front.space
    first = costs_of_front(front.networks, front.info)[0]
    found = []
    for column, words, unit, scale in (("accuracy", front.info.metric, "points", 0.01), (first.key, first.words, first.unit, first.scale)):
        effects = effects_of(front, column)
        if effects is not None:
            found.append(heat_map(space, effects, words=words, unit=unit, scale=scale))
    return tuple(found)


def _trend_charts(space: Space, archs: Sequence[Arch], front: Front, cost: Quantity) -> list[dict[str, Any]]:
    rows_NC = space.encode_all(archs)
    cost_N, accuracy_N = floats_of(front.networks, cost.key), floats_of(front.networks, "accuracy")
    charts = []
    for trend in trends(space, rows_NC, cost_N, accuracy_N):
        layers = [
            layer("line", trend.costs, means, words=owner, style=f"s{i % 7}", texts=_trend_texts(trend.costs, owner, means, cost))
            for i, (owner, means) in enumerate(trend.means.items())
        ]
        unit = "px" if trend.kind == "resolution" else ""
        x = axis(cost.words, cost.unit, scale=cost.scale)
        charts.append(chart(trend.kind.capitalize(), x, axis(f"{trend.average} {trend.kind}", unit), layers))
    return charts


def _trend_texts(costs: Floats, owner: str, means: Floats, cost: Quantity) -> list[str]:
    return [f"{owner}: {figures(mean)}\nat {cost.text(at)}" for at, mean in zip(costs, means, strict=True)]


# -- provenance -------------------------------------------------------------------------------------------------------


def _provenance(info: FrontInfo) -> list[tuple[str, list[tuple[str, str]]]]:
    groups = groups_of({key: value for key, value in to_json(info).items() if key not in _APART}, "Front")
    groups += groups_of({"limits": info.budget, "least": info.least}, "Front")
    names = {"limits": "Budget of the search", "least": "Least that was found"}
    groups = [(names.get(title, title.capitalize()), rows) for title, rows in groups]
    return groups + [(f"Latency on {device}", rows_of(to_json(each))) for device, each in info.latency.items()]
