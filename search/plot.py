"""The picture of a front: accuracy against latency, what was evaluated, what was picked, and what was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ofa.files import replacing
from search.budget import COLUMNS
from search.front import Candidate, Front, staircase

__all__ = ["Pick", "draw_front", "save_front_picture"]

# Okabe and Ito's palette, which stays distinct under the common colour blindnesses; shapes differ as well.
_GREY, _BLUE, _ORANGE, _VERMILION = "#999999", "#0072B2", "#E69F00", "#D55E00"

_DOTS_PER_INCH = 150


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A network to point out.

    Attributes:
        label: a word or two, such as the budget that it answers.
        candidate: the network with what is promised of it.
        measured_ms: its latency as measured on the device; None if it was not.
    """

    label: str
    candidate: Candidate
    measured_ms: float | None = None


def save_front_picture(front: Front, path: str | os.PathLike[str], *, picks: Sequence[Pick] = (), title: str | None = None) -> None:
    """Write the picture as a PNG file of 1200 x 780 pixels; arguments as ``draw_front``, or FileError."""
    figure = draw_front(front, picks=picks, title=title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)


def draw_front(front: Front, *, picks: Sequence[Pick] = (), title: str | None = None) -> Figure:
    """Draw accuracy against latency.

    Args:
        front: its best networks are a line; everything else that was evaluated are dots.
        picks: networks to point out, with their promised interval, and a cross where they were measured.
        title: above the picture; by default the space and the device.

    Returns:
        A figure of matplotlib's object interface: no window, no global state.
    """
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_networks(axes, front)
    _draw_picks(axes, sorted(picks, key=lambda pick: pick.candidate.latency_ms))
    axes.set_title(title or f"{front.metadata['space']} on {front.device_name}", loc="left")
    axes.set_xlabel(f"latency of one call on {front.device_name}, ms")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.06, y=0.08)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _draw_networks(axes: Axes, front: Front) -> None:
    columns = {name: front.networks[name].to_numpy(dtype=np.float64) for name in COLUMNS}
    best = staircase(columns, ("latency_ms",))
    dots_ms = np.concatenate([front.dominated["latency_ms"], columns["latency_ms"][~best]])
    dots = np.concatenate([front.dominated["accuracy"], columns["accuracy"][~best]])
    if len(dots):
        axes.scatter(dots_ms, 100 * dots, s=6, color=_GREY, alpha=0.4, linewidths=0, label=f"evaluated ({len(dots)})", rasterized=True)
    order = np.argsort(columns["latency_ms"][best])
    latency_ms, accuracy = columns["latency_ms"][best][order], columns["accuracy"][best][order]
    # Steps, because between two networks a budget gets the one below it and nothing better.
    words = f"front ({len(order)})"
    axes.plot(latency_ms, 100 * accuracy, "o-", drawstyle="steps-post", color=_BLUE, markersize=3.5, linewidth=1.2, label=words)


def _draw_picks(axes: Axes, picks: Sequence[Pick]) -> None:
    for pick in picks:
        network, height = pick.candidate, 100 * pick.candidate.accuracy
        reach = [[network.latency_ms - network.latency_low_ms], [network.latency_high_ms - network.latency_ms]]
        axes.errorbar(
            network.latency_ms,
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
            label="picked, with its interval" if pick is picks[0] else None,
        )
        # Below and to the right, where only slower and less accurate networks are.
        axes.annotate(
            pick.label,
            (network.latency_ms, height),
            xytext=(12, -20),
            textcoords="offset points",
            va="center",
            zorder=7,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": _GREY, "linewidth": 0.6, "alpha": 0.9},
        )
    measured = [(pick.measured_ms, 100 * pick.candidate.accuracy) for pick in picks if pick.measured_ms is not None]
    if measured:
        latencies, heights = zip(*measured, strict=True)
        axes.scatter(latencies, heights, s=90, color=_VERMILION, marker="x", linewidths=2.2, zorder=6, label="measured")
