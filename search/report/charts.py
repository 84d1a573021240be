"""Charts as JSON values: what a page's own script draws. Every name in them is shown as text and never as markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa.arrays import Floats

__all__ = ["axis", "chart", "ends_of", "layer", "numbers"]

Json = dict[str, Any]


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Numbers as JSON has them: None for what is no number, whole numbers without a point."""
    return [_number(float(value)) for value in values]


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def axis(words: str, unit: str = "", *, scale: float = 1.0, zero: bool = False, ticks: Sequence[tuple[float, str]] | None = None) -> Json:
    """An axis.

    Args:
        words: what it shows.
        unit: written beside it.
        scale: what values are divided by to be in that unit.
        zero: whether it must begin at 0.
        ticks: places and words, for an axis of names.
    """
    return {"words": words, "unit": unit, "scale": scale, "zero": zero, "ticks": None if ticks is None else [list(tick) for tick in ticks]}


def layer(
    kind: str,
    x: Iterable[Any],
    y: Iterable[Any],
    *,
    words: str = "",
    style: str = "s0",
    texts: Sequence[str] | None = None,
    low: Iterable[Any] | None = None,
    high: Iterable[Any] | None = None,
    hover: bool = True,
) -> Json:
    """One thing that a chart draws.

    Args:
        kind: ``dots``, ``line`` (through its points), ``steps``, ``area`` (from ``low`` to ``high``), ``bars`` (upright intervals) or
            ``crosses``.
        x: values of the horizontal axis, in the column's own unit.
        y: values of the vertical axis.
        words: in the legend; nothing is written there if empty.
        style: ``s0`` to ``s6`` or ``grey``: colour, dash and shape.
        texts: what is said of each point, one line a fact.
        low: lower ends of intervals of ``y``.
        high: upper ends.
        hover: whether its points can be pointed at.
    """
    ends = {name: numbers(values) for name, values in (("low", low), ("high", high)) if values is not None}
    points = {"x": numbers(x), "y": numbers(y), "texts": None if texts is None else list(texts)}
    return {"kind": kind, "words": words, "style": style, "hover": hover, **points, **ends}


def chart(words: str, x: Mapping[str, Any], y: Mapping[str, Any], layers: Sequence[Json], *, square: bool = False, note: str = "") -> Json:
    """A chart.

    Args:
        words: its title.
        x: its horizontal axis.
        y: its vertical axis.
        layers: from the back to the front.
        square: whether both axes have the same range.
        note: a sentence below it.
    """
    return {"words": words, "x": dict(x), "y": dict(y), "layers": list(layers), "square": square, "note": note}


def ends_of(*values: Floats) -> Floats:
    """The least and the greatest of all values, for a diagonal."""
    every = np.concatenate([np.ravel(each) for each in values])
    every = every[np.isfinite(every)]
    return np.array([every.min(), every.max()])
