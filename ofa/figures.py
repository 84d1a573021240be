"""Figures of matplotlib: made, styled and written in one way, without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ofa.files import replacing

__all__ = ["new_figure", "own_style", "save_figure"]

_DOTS_PER_INCH = 150


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults inside the block, and texts as they are: whatever draws or writes a figure is decorated with it.

    Matplotlib reads a file ``matplotlibrc`` of the current folder, which may have come with a stranger's files: it could have LaTeX
    started for every text. And a dollar sign in the name of a class or device would begin a formula.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, of matplotlib's object interface."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@own_style()
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG file of 150 dots an inch.

    Raises:
        FileError: the file cannot be written.
    """
    png = BytesIO()  # which no disk can fail, where the library would say no more than that it did
    figure.savefig(png, format="png", dpi=_DOTS_PER_INCH)
    with replacing(path) as temporary:
        temporary.write_bytes(png.getvalue())
