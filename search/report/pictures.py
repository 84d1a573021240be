"""The charts of a report as PNG files, for documents that cannot embed a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_tables import LatencyTable
from ofa.errors import FileError
from ofa.figures import new_figure, own_style, save_figure
from ofa.files import reason_of
from search.plot import draw_costs, draw_front, filled
from search.report.front_page import front_page
from search.report.heat import HeatMap
from search.report.run_page import run_page
from search.report.table_page import table_page
from search.report.training import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from search.front.front import Front

__all__ = ["draw_chart", "draw_genes", "save_pictures"]

_COLOURS = {"s0": "#0072B2", "s1": "#E69F00", "s2": "#009E73", "s3": "#D55E00", "s4": "#CC79A7", "s5": "#56B4E9", "s6": "#000000"}
_GREY = "#8b929b"
_LINES = {"x": 65, "y": 40}
"""Characters per line of an axis label."""
_DASHES = {"s0": "-", "s1": "--", "s2": ":", "s3": "-.", "s4": (0, (4, 2)), "s5": (0, (9, 3)), "s6": "-"}
_STEMS = {"measured": "measured", "residuals": "calibration", "trend": "along-the-front", "place": "blocks-by-place", "blocks": "blocks"}
Json = Mapping[str, Any]


def save_pictures(source: Front | LatencyTable | RunRecord, folder: Path) -> tuple[Path, ...]:
    """Write every chart of a source as a PNG file.

    Args:
        source: a front, a table or a run.
        folder: folder of the files, created if absent; its parent folder must exist.

    Returns:
        The paths of the files.

    Raises:
        OfaError: as ``page_of``, or the folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"'{folder}' must be a folder that can be made, but {reason_of(error)}; choose another") from error
    figures = _figures(source)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    return tuple(folder / f"{name}.png" for name in figures)


def _figures(source: Front | LatencyTable | RunRecord) -> dict[str, Figure]:
    if isinstance(source, LatencyTable):
        return _charts(table_page(source).content["charts"])
    if isinstance(source, RunRecord):
        return _charts(run_page(source).content["charts"])
    content = front_page(source).content
    figures = {"front": draw_front(source), "costs": draw_costs(source), **_charts(content["charts"])}
    return {**figures, "genes": draw_genes(content["maps"])} if content["maps"] else figures


def _charts(charts: Mapping[str, Json]) -> dict[str, Figure]:
    names: dict[str, Figure] = {}
    for key, chart in charts.items():
        stem, _, number = key.partition("-")
        name = _STEMS.get(stem, stem) + (f"-{int(number) + 1}" if number.isdigit() else "")
        names[name] = draw_chart(chart)
    return names


@own_style()
def draw_chart(chart: Json) -> Figure:
    """Draw a chart of the page (``search.report.charts``) with matplotlib."""
    figure = new_figure(6, 6) if chart["square"] else new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    for layer in chart["layers"]:
        _draw_layer(axes, layer, chart["x"]["scale"], chart["y"]["scale"])
    axes.set_title(filled(chart["words"], _LINES["x"]), loc="left", fontsize=11)
    for name in ("x", "y"):
        axis = chart[name]
        words = f"{axis['words']}, {axis['unit']}" if axis["unit"] else axis["words"]
        axes.set(**{f"{name}label": filled(words, _LINES[name])})
        if axis["ticks"]:
            places, texts = zip(*axis["ticks"], strict=True)
            (axes.set_xticks if name == "x" else axes.set_yticks)(places, texts, rotation=90 if len(texts) > 9 else 0, fontsize=8)
        if axis["zero"]:
            axes.set(**{f"{name}lim": (0, None)})
    if chart["square"]:
        axes.set_aspect("equal")
    if any(layer["words"] for layer in chart["layers"]):
        axes.legend(frameon=False, fontsize=8.5)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_layer(axes: Axes, layer: Json, x_scale: float, y_scale: float) -> None:
    def values(name: str, scale: float) -> Any:
        return np.array([np.nan if value is None else value for value in layer[name]], dtype=np.float64) / scale

    style, x = layer["style"], values("x", x_scale)
    colour, label = _COLOURS.get(style, _GREY), layer["words"] or "_"
    if layer["kind"] == "area":
        axes.fill_between(x, values("low", y_scale), values("high", y_scale), color=colour, alpha=0.15, linewidth=0, label=label)
    elif layer["kind"] == "bars":
        axes.vlines(x, values("low", y_scale), values("high", y_scale), color=colour, alpha=0.45, linewidth=1.2, label=label)
    elif layer["kind"] == "dots":
        axes.plot(x, values("y", y_scale), "o", color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, label=label)
    else:
        axes.plot(x, values("y", y_scale), color=colour, linestyle=_DASHES.get(style, "-"), linewidth=1.4, label=label)


@own_style()
def draw_genes(maps: Sequence[HeatMap]) -> Figure:
    """Draw heat maps of genes, one for each number."""
    height = 1.2 + 0.42 * (len(maps[0].stages) + 1)
    figure = new_figure(8.5, height * len(maps))
    for number, each in enumerate(maps, start=1):
        axes = figure.add_subplot(len(maps), 1, number)
        _draw_map(axes, each)
    return figure


def _draw_map(axes: Axes, each: HeatMap) -> None:
    rows = [*each.stages, tuple(cell for _, cell in each.others)]
    width = max(map(len, rows))
    sizes = np.full((len(rows), width), np.nan)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            sizes[y, x] = cell.size
    largest = np.nanmax(sizes)
    axes.imshow(sizes, cmap="Blues", vmin=0, vmax=largest, aspect="auto")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            name = each.others[x][0] if y == len(rows) - 1 and cell.text else ""
            text = f"{name}\n{cell.text}" if name else cell.text
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if cell.size > 0.6 * largest else "black")
    headings = [kind if slots == 1 else f"{kind} {slot + 1}" for kind, slots in each.columns for slot in range(slots)]
    axes.set_xticks(range(width), [*headings, *[""] * (width - len(headings))], fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [*(f"stage {s + 1}" for s in range(len(each.stages))), "network"], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    words = f"effect on {each.words}" + (f", {each.unit}" if each.unit else "")
    axes.set_title(words, loc="left", fontsize=10)
