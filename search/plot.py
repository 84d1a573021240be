"""Pictures of a front: accuracy against costs, with all evaluated networks, picked networks, and measurements."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ofa.figures import new_figure, own_style, save_figure
from search.front.columns import Quantity, best_along, costs_of_front, floats_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ofa.arrays import Floats
    from search.front.candidate import Candidate
    from search.front.front import Front

__all__ = ["Pick", "draw_costs", "draw_front", "filled", "save_front_picture"]

# Okabe and Ito's palette, which stays distinct under the common colour blindnesses; shapes differ as well.
_GREY, _BLUE, _ORANGE, _VERMILION = "#999999", "#0072B2", "#E69F00", "#D55E00"

_MOST_COLUMNS = 3


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A network to point out.

    Attributes:
        label: a word or two, such as its budget.
        candidate: the network with its predictions.
        measured_ms: its measured latency in ms on the picture's device; None if it was not measured.
    """

    label: str
    candidate: Candidate
    measured_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Position of a pick on the axis of a cost, in the cost's unit; NaN ends without an interval."""

    label: str
    accuracy: float
    value: float
    low: float
    high: float
    measured: float | None


def save_front_picture(front: Front, path: str | os.PathLike[str], *, picks: Sequence[Pick] = (), title: str | None = None) -> None:
    """Write the picture as a PNG file of 1200 x 780 pixels; arguments as ``draw_front``.

    Raises:
        FileError: the file cannot be written.
    """
    save_figure(draw_front(front, picks=picks, title=title), path)


@own_style()
def draw_front(front: Front, *, picks: Sequence[Pick] = (), title: str | None = None, cost: str | None = None) -> Figure:
    """Draw accuracy against a cost.

    Args:
        front: the front; its best networks by this cost form a line, all other evaluated networks are dots.
        picks: networks to point out, with their promised interval, and a cross at their measurement.
        title: title of the picture; None for the space and the devices.
        cost: column of the cost, such as ``latency_ms@pi``; None for the first objective.

    Returns:
        A figure of matplotlib's object interface: no window, no global state.
    """
    known = costs_of_front(front.networks, front.info)
    drawn = next((each for each in known if each.key == cost), known[0])
    figure = new_figure(8, 5.2)
    axes = figure.add_subplot()
    _draw_networks(axes, front, drawn)
    _draw_picks(axes, sorted((_place(pick, drawn) for pick in picks), key=lambda place: place.value))
    axes.set_title(filled(title or _title(front), 70), loc="left")
    axes.set_xlabel("\n".join(filled(text, 100) for text in [drawn.label, *_conditions(front, [drawn])]))
    axes.legend(loc="lower right", frameon=False)
    return figure


@own_style()
def draw_costs(front: Front, *, title: str | None = None) -> Figure:
    """Draw accuracy against every cost of the front, a panel each.

    Args:
        front: the front.
        title: title of the picture; None for the space and the devices.
    """
    known = costs_of_front(front.networks, front.info)
    columns = min(_MOST_COLUMNS, len(known))
    rows = -(-len(known) // columns)
    figure = new_figure(4.2 * columns, 3.2 * rows + 0.4)
    for number, cost in enumerate(known, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_networks(axes, front, cost)
        axes.set_xlabel(filled(cost.label, 40))
    above = [title or _title(front), *_conditions(front, known)]
    figure.suptitle("\n".join(filled(text, 45 * columns) for text in above), x=0.01, ha="left")
    return figure


def _conditions(front: Front, costs: Sequence[Quantity]) -> list[str]:
    """Measurement conditions of the latencies and energies among the costs, one line per device."""
    devices = dict.fromkeys(name for cost in costs if cost.device is not None for name in front.info.measures(cost.device))
    return [f"{device}: {front.conditions[device].words}" for device in devices if device in front.conditions]


def _title(front: Front) -> str:
    devices = ", ".join(front.info.devices)
    return f"{front.info.space} on {devices}" if devices else front.info.space


def filled(text: str, most: int) -> str:
    """A text, wrapped to lines of at most ``most`` characters so that it stays inside the picture."""
    return "\n".join(textwrap.wrap(text, most))


def _draw_networks(axes: Axes, front: Front, cost: Quantity) -> None:
    values, accuracy = floats_of(front.networks, cost.key) / cost.scale, floats_of(front.networks, "accuracy")
    beaten = floats_of(front.dominated, cost.key) / cost.scale
    best = best_along(values, accuracy)
    others = np.setdiff1d(np.arange(len(values)), best)
    _draw_dots(axes, np.concatenate([beaten, values[others]]), np.concatenate([floats_of(front.dominated, "accuracy"), accuracy[others]]))
    # Steps: a budget between two networks gets the cheaper one.
    words = f"front ({len(best)})"
    axes.plot(values[best], 100 * accuracy[best], "o-", drawstyle="steps-post", color=_BLUE, markersize=3.5, linewidth=1.2, label=words)
    for precision in sorted(set(front.precisions) - {"fp32"}):
        own = best[np.array(front.precisions)[best] == precision]
        axes.plot(
            values[own],
            100 * accuracy[own],
            "s",
            color=_BLUE,
            markerfacecolor="white",
            markersize=4,
            label=f"of these in {precision} ({len(own)})",
        )
    source = front.info.accuracy_source
    axes.set_ylabel(f"{front.info.metric} ({source}), %" if source else f"{front.info.metric}, %")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.06, y=0.08)


def _draw_dots(axes: Axes, values: Floats, accuracy: Floats) -> None:
    known = np.isfinite(values) & np.isfinite(accuracy)
    if known.any():
        words = f"evaluated ({known.sum()})"
        axes.scatter(values[known], 100 * accuracy[known], s=6, color=_GREY, alpha=0.4, linewidths=0, label=words, rasterized=True)


def _place(pick: Pick, cost: Quantity) -> _Place:
    """Position of a pick: for a latency with interval and measurement, else its exact cost."""
    network = pick.candidate
    if cost.device is None:
        value = network.costs[cost.key] / cost.scale
        return _Place(label=pick.label, accuracy=network.accuracy, value=value, low=np.nan, high=np.nan, measured=None)
    if cost.unit != "ms":
        energy = network.energies_mj[cost.device]
        return _Place(label=pick.label, accuracy=network.accuracy, value=energy, low=np.nan, high=np.nan, measured=None)
    estimate = network.latencies[cost.device]
    low, high = estimate.latency_low_ms, estimate.latency_high_ms
    return _Place(label=pick.label, accuracy=network.accuracy, value=estimate.latency_ms, low=low, high=high, measured=pick.measured_ms)


def _draw_picks(axes: Axes, places: Sequence[_Place]) -> None:
    for place in places:
        height, known = 100 * place.accuracy, place.low <= place.value <= place.high
        reach = [[place.value - place.low], [place.high - place.value]] if known else None
        axes.errorbar(
            place.value,
            height,
            xerr=reach,
            fmt="D",
            color=_ORANGE,
            markeredgecolor="black",
            markersize=6.5,
            capsize=5,
            ecolor="black",
            elinewidth=1,
            zorder=5,
            label=("picked, with its interval" if known else "picked") if place is places[0] else None,
        )
        # Labels go below and to the right, where the picture has only slower and less accurate networks.
        axes.annotate(
            place.label,
            (place.value, height),
            xytext=(12, -20),
            textcoords="offset points",
            va="center",
            zorder=7,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": _GREY, "linewidth": 0.6, "alpha": 0.9},
        )
    measured = [(place.measured, 100 * place.accuracy) for place in places if place.measured is not None]
    if measured:
        latencies, heights = zip(*measured, strict=True)
        axes.scatter(latencies, heights, s=90, color=_VERMILION, marker="x", linewidths=2.2, zorder=6, label="measured")
