"""Display names of columns, and formatting and parsing of their values with units."""

from __future__ import annotations

import math
import re

from ofa.costs import COSTS
from ofa.errors import SearchError

__all__ = ["called", "is_known", "read_typed", "typed"]

_CALLED = {
    "latency_ms": "latency",
    "latency_low_ms": "latency",
    "latency_high_ms": "latency",
    "energy_mj": "energy",
    "accuracy": "accuracy",
}
_ENDS = {"latency_high_ms": " (the upper end of its interval)", "latency_low_ms": " (the lower end of its interval)"}

Units = tuple[tuple[float, float, str], ...]
_PLAIN: Units = ((0.0, 1.0, ""),)
_COUNTS: Units = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (0.0, 1e3, "K"))
_BINARY: Units = ((2.0**30, 2.0**30, "GiB"), (2.0**20, 2.0**20, "MiB"), (2.0**10, 2.0**10, "KiB"), (0.0, 1.0, "B"))
_DECIMAL: Units = ((1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (0.0, 1e3, "KB"))
_UNITS: dict[str, Units] = {
    "latency_ms": ((1e4, 1e3, "s"), (0.01, 1.0, "ms"), (0.0, 1e-3, "us")),
    "energy_mj": ((1e4, 1e3, "J"), (0.01, 1.0, "mJ"), (0.0, 1e-3, "uJ")),
    "accuracy": ((0.0, 0.01, "%"),),
}
"""By column, its units: smallest value for which the unit is used, the unit in the column's own units, and its symbol."""
_DIGITS = 4

_NUMBER_WITH_UNIT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ]+|%)", re.ASCII)
_KINDS = {"latency_ms": ("a latency", "12ms"), "energy_mj": ("an energy", "20mJ"), "accuracy": ("an accuracy", "76%")}
_COUNT, _SIZE = ("a count", "300M"), ("a size", "2MiB")
"""Kind of value in messages, and an example."""


def called(column: str, *, end: bool = False) -> str:
    """The display name of a column or a limit, such as ``latency on pi`` for ``latency_ms@pi``.

    Args:
        column: name of the column, perhaps with ``@`` and a device.
        end: whether to add which end of an interval it is.
    """
    name, _, device = column.partition("@")
    words = COSTS.get(name).words if name in COSTS else _CALLED.get(name, name.replace("_", " "))
    return words + (f" on {device}" if device else "") + (_ENDS.get(name, "") if end else "")


def is_known(column: str) -> bool:
    """Whether a column of this name exists, on any device."""
    name = column.partition("@")[0]
    return name in _CALLED or name in COSTS


def typed(column: str, value: float, *, up: bool | None = None) -> str:
    """A value in the notation of the command line, such as ``12ms``, ``196KiB``, ``300M`` or ``76%``.

    Args:
        column: column of the value; an unknown column gives a plain number.
        value: the value in the column's own unit.
        up: True rounds up to four significant digits, False rounds down; None does not round.
    """
    name = column.partition("@")[0].replace("_low", "").replace("_high", "")
    known = _DECIMAL if name.endswith("_bytes") and value % 1024 and not value % 1000 else _units(name)
    scale, unit = next(((scale, unit) for least, scale, unit in known if value >= least), known[-1][1:])
    number = value / scale if up is None else _rounded(value / scale, up)
    return f"{number:.12g}{unit}"


def read_typed(column: str, text: str) -> float:
    """The value of a text such as ``12ms``, ``2MiB``, ``300M`` or ``76%``, in the column's own unit; counts and bytes are whole numbers.

    Args:
        column: column of the value.
        text: a positive number with one of the column's units; ``KB`` is 1000 bytes, ``KiB`` 1024.

    Raises:
        SearchError: the text is no such number, or an accuracy is above 100%.
    """
    name = column.partition("@")[0]
    known = _units(name) + (_DECIMAL if name.endswith("_bytes") else ())
    units = {unit: scale for _, scale, unit in sorted(known, key=lambda each: each[1])}
    match = _NUMBER_WITH_UNIT.fullmatch(text.strip())
    scale = units.get(match[2].replace("µ", "u")) if match else None
    # Rounded, so that 95% is exactly 0.95.
    value = 0.0 if match is None or scale is None else float(f"{float(match[1]) * scale:.15g}")
    is_whole = name not in _KINDS
    kind, example = _KINDS.get(name, _SIZE if name.endswith("_bytes") else _COUNT)
    if is_whole and math.isfinite(value):
        value = round(value)
    if not 0 < value < math.inf:
        raise SearchError(
            f"{kind} must be a positive number with a unit ({', '.join(units)}), but got '{text}'; write for example {example}"
        )
    if name == "accuracy" and value > 1:
        raise SearchError(f"an accuracy must be at most 100%, but got '{text}'; write for example 76%")
    return value


def _units(name: str) -> Units:
    if name in COSTS:
        return {"count": _COUNTS, "bytes": _BINARY}[COSTS.get(name).unit]
    return _UNITS.get(name, _PLAIN)


def _rounded(value: float, up: bool) -> float:
    if not math.isfinite(value) or value == 0 or (value.is_integer() and abs(value) < 10**_DIGITS):
        return value
    step = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    return (math.ceil if up else math.floor)(value / step) * step
