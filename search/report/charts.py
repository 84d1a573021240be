"""Charts as JSON values, which the page's script draws. All names are shown as text, never as markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa.arrays import Floats

__all__ = ["axis", "chart", "ends_of", "layer", "numbers"]

Json = dict[str, Any]


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Numbers as JSON values: None for NaN and infinities, whole numbers as integers."""
    return [_number(float(value)) for value in values]


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def axis(words: str, unit: str = "", *, scale: float = 1.0, zero: bool = False, ticks: Sequence[tuple[float, str]] | None = None) -> Json:
    """An axis.

    Args:
        words: its label.
        unit: its unit.
        scale: divisor of the values for that unit.
        zero: whether it begins at 0.
        ticks: positions and labels, for an axis of names.
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
    """One layer of a chart.

    Args:
        kind: ``dots``, ``line`` (through its points), ``steps``, ``area`` (from ``low`` to ``high``), ``bars`` (upright intervals) or
            ``crosses``.
        x: values of the horizontal axis, in the column's own unit.
        y: values of the vertical axis.
        words: label in the legend; empty for none.
        style: ``s0`` to ``s6`` or ``grey``: colour, dash and shape.
        texts: tooltip of each point, one line per fact.
        low: lower ends of the intervals of ``y``.
        high: upper ends of the intervals of ``y``.
        hover: whether its points have tooltips.
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
        layers: its layers, from back to front.
        square: whether both axes have the same range.
        note: a sentence below it.
    """
    return {"words": words, "x": dict(x), "y": dict(y), "layers": list(layers), "square": square, "note": note}


def ends_of(*values: Floats) -> Floats:
    """The smallest and the largest of all values, for a diagonal."""
    every = np.concatenate([np.ravel(each) for each in values])
    every = every[np.isfinite(every)]
    return np.array([every.min(), every.max()])
