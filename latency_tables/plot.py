"""The picture of a check: a table's estimates against measurements."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.check import TableCheck
from ofa.figures import new_figure, own_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_check", "save_check_plot"]

# Okabe and Ito's palette, which stays distinct under the common colour blindnesses.
_GREY, _BLUE = "#999999", "#0072B2"
_BAND = 0.05


def save_check_plot(check: TableCheck, path: str | os.PathLike[str], *, title: str) -> None:
    """Write the picture as a PNG file of 900 x 900 pixels; arguments as ``draw_check``.

    Raises:
        FileError: the file cannot be written.
    """
    save_figure(draw_check(check, title=title), path)


@own_style()
def draw_check(check: TableCheck, *, title: str) -> Figure:
    """Draw estimates, with their intervals if any, against measurements.

    Args:
        check: the comparison.
        title: title of the picture.

    Returns:
        A figure of matplotlib's object interface: no window, no global state.
    """
    figure = new_figure(6, 6)
    axes = figure.add_subplot()
    networks = check.networks
    measured, estimated = networks["measured_ms"].to_numpy(), networks["latency_ms"].to_numpy()
    every = np.concatenate([measured, estimated])
    margin = 0.05 * float(np.ptp(every)) or 0.05 * float(every.max())
    ends = np.array([max(0.0, every.min() - margin), every.max() + margin])
    inside = f"within 5 %: {_percent(check.within_5_percent)} of networks"
    axes.fill_between(ends, ends * (1 - _BAND), ends * (1 + _BAND), color=_GREY, alpha=0.2, linewidth=0, label=inside)
    axes.plot(ends, ends, color=_GREY, linewidth=1, label="estimate = measurement")
    low, high = networks["latency_low_ms"].to_numpy(), networks["latency_high_ms"].to_numpy()
    if not np.isnan(low).any():
        axes.vlines(measured, low, high, color=_BLUE, alpha=0.35, linewidth=1, label="interval of the estimate")
    # White edges separate dots of similar networks.
    words = f"{check.nets} networks"
    axes.plot(measured, estimated, "o", color=_BLUE, markersize=5.5, markeredgecolor="white", markeredgewidth=0.5, label=words)
    axes.set(xlim=ends, ylim=ends, xlabel="measured, ms", ylabel="estimated, ms", aspect="equal")
    conditions = "" if check.conditions is None else f"{check.conditions.words}\n"
    axes.set_title(f"{title}\n{conditions}{_figures(check)}", loc="left", fontsize=11)
    axes.legend(loc="upper left", frameon=False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figures(check: TableCheck) -> str:
    floor = "" if np.isnan(check.noise_floor) else f" (timed again {_percent(check.noise_floor)})"
    return f"mean error {_percent(check.mean_error)}{floor}, Kendall {check.kendall:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
