"""Numbers of networks as people say and type them: what a column is called, and its values with units that options take."""

from __future__ import annotations

import math

__all__ = ["called", "is_known", "typed"]

_CALLED = {
    "latency_ms": "latency",
    "latency_low_ms": "latency",
    "latency_high_ms": "latency",
    "energy_mj": "energy",
    "macs": "MACs",
    "params": "parameters",
    "weight_bytes": "weights",
    "peak_activation_bytes": "peak activations",
    "accuracy": "accuracy",
}
_ENDS = {"latency_high_ms": " (the upper end of its interval)", "latency_low_ms": " (the lower end of its interval)"}

_PLAIN = ((0.0, 1.0, ""),)
_COUNTS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (0.0, 1e3, "K"))
_BINARY = ((2.0**30, 2.0**30, "GiB"), (2.0**20, 2.0**20, "MiB"), (2.0**10, 2.0**10, "KiB"), (0.0, 1.0, "B"))
_DECIMAL = ((1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (0.0, 1e3, "KB"))
_UNITS = {
    "latency_ms": ((1e4, 1e3, "s"), (0.01, 1.0, "ms"), (0.0, 1e-3, "us")),
    "energy_mj": ((1e4, 1e3, "J"), (0.01, 1.0, "mJ"), (0.0, 1e-3, "uJ")),
    "macs": _COUNTS,
    "params": _COUNTS,
    "weight_bytes": _BINARY,
    "peak_activation_bytes": _BINARY,
    "accuracy": ((0.0, 0.01, "%"),),
}
"""By column: from which value on a unit is used, how many of the column's own it is, and how it is written."""
_DIGITS = 4


def called(column: str, *, end: bool = False) -> str:
    """The words for a column or a limit, such as ``latency on pi`` for ``latency_ms@pi``.

    Args:
        column: its name, perhaps with ``@`` and a device.
        end: whether to say which end of an interval it is.
    """
    name, _, device = column.partition("@")
    words = _CALLED.get(name, name.replace("_", " "))
    return words + (f" on {device}" if device else "") + (_ENDS.get(name, "") if end else "")


def is_known(column: str) -> bool:
    """Whether there is such a number, of any device."""
    return column.partition("@")[0] in _CALLED


def typed(column: str, value: float, *, up: bool | None = None) -> str:
    """A value as an option of the command line takes it, such as ``12ms``, ``196KiB``, ``300M`` or ``76%``.

    Args:
        column: what it is a value of; without a unit of its own it is a plain number.
        value: in the column's own unit.
        up: whether to round to four digits upwards, or downwards; None leaves the value as it is.
    """
    name = column.partition("@")[0].replace("_low", "").replace("_high", "")
    known = _DECIMAL if name.endswith("_bytes") and value % 1024 and not value % 1000 else _UNITS.get(name, _PLAIN)
    scale, unit = next(((scale, unit) for least, scale, unit in known if value >= least), known[-1][1:])
    number = value / scale if up is None else _rounded(value / scale, up)
    return f"{number:.12g}{unit}"


def _rounded(value: float, up: bool) -> float:
    if not math.isfinite(value) or value == 0 or (value.is_integer() and abs(value) < 10**_DIGITS):
        return value
    step = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    return (math.ceil if up else math.floor)(value / step) * step
