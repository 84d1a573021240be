"""Figures of matplotlib: made, styled and written in one way, without a window and with nothing left in the user's home."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from ofa.files import replacing, temporary_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "own_style", "save_figure"]

_DOTS_PER_INCH = 150
_UNTIL_THE_END = ExitStack()
atexit.register(_UNTIL_THE_END.close)


def _keep_out_of_the_home() -> None:
    """Give matplotlib a temporary folder for its list of fonts, unless the user has named one or imported it already."""
    if "matplotlib" not in sys.modules and "MPLCONFIGDIR" not in os.environ:
        os.environ["MPLCONFIGDIR"] = str(_UNTIL_THE_END.enter_context(temporary_folder("fonts")))


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults inside the block, and texts as they are: whatever draws or writes a figure is decorated with it.

    Matplotlib reads a file ``matplotlibrc`` of the current folder, which may have come with a stranger's files: it could have LaTeX
    started for every text. And a dollar sign in the name of a class or device would begin a formula.
    """
    _keep_out_of_the_home()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, of matplotlib's object interface."""
    _keep_out_of_the_home()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
