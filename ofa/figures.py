"""Matplotlib figures with one style, without a window, and without files in the user's home."""

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
    """Give matplotlib a temporary folder for its font cache, unless MPLCONFIGDIR is set or matplotlib is already imported."""
    if "matplotlib" not in sys.modules and "MPLCONFIGDIR" not in os.environ:
        os.environ["MPLCONFIGDIR"] = str(_UNTIL_THE_END.enter_context(temporary_folder("fonts")))


@contextmanager
def own_style() -> Iterator[None]:
    """Use matplotlib's defaults, without formulas in texts. Decorates every function that draws or writes a figure.

    Matplotlib reads ``matplotlibrc`` from the current folder. Such a file may come with untrusted files and could start LaTeX for
    every text. Formulas are off because a dollar sign in the name of a class or device would begin one.
    """
    _keep_out_of_the_home()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of matplotlib's object interface; ``width`` and ``height`` in inches."""
    _keep_out_of_the_home()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@own_style()
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG file with 150 dots per inch.

    Args:
        figure: of ``new_figure``.
        path: of the file; an existing one is replaced.

    Raises:
        FileError: the file cannot be written.
    """
    png = BytesIO()  # in memory first: a disk error then comes from our own writing, with a clear message
    figure.savefig(png, format="png", dpi=_DOTS_PER_INCH)
    with replacing(path) as temporary:
        temporary.write_bytes(png.getvalue())
