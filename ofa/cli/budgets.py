"""Budgets as people write them: a positive number with its unit, such as ``12ms``, ``2MiB``, ``300M``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

import typer

__all__ = [
    "LatencyOption",
    "MacsOption",
    "MemoryOption",
    "ParamsOption",
    "WeightsOption",
    "given",
    "parse_bytes",
    "parse_count",
    "parse_latency_ms",
]

_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COUNTS = {"K": 10**3, "M": 10**6, "G": 10**9}

_NUMBER_WITH_UNIT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ]+)", re.ASCII)


def parse_latency_ms(text: str) -> float:
    """``12ms``, ``0.5s`` or ``800us`` in milliseconds.

    Raises:
        typer.BadParameter: no positive number with one of the units.
    """
    return _parse(text, _MILLISECONDS, "a latency", "12ms")


def parse_bytes(text: str) -> int:
    """``2MiB`` (2 x 1024 x 1024) or ``300KB`` (300 x 1000) in bytes.

    Raises:
        typer.BadParameter: no positive number with one of the units.
    """
    return _whole(text, _BYTES, "a size", "2MiB")


def parse_count(text: str) -> int:
    """``300M`` MACs or ``5M`` parameters as a number.

    Raises:
        typer.BadParameter: no positive number with one of the units.
    """
    return _whole(text, _COUNTS, "a count", "300M")


def _whole(text: str, units: Mapping[str, float], what: str, example: str) -> int:
    value = round(_parse(text, units, what, example))
    if value < 1:
        raise _wrong(text, units, what, example)
    return value


def _parse(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    match = _NUMBER_WITH_UNIT.fullmatch(text.strip())
    scale = units.get(match[2]) if match else None
    if match is None or scale is None:
        raise _wrong(text, units, what, example)
    value = float(match[1]) * scale
    if not 0 < value < math.inf:
        raise _wrong(text, units, what, example)
    return value


def _wrong(text: str, units: Mapping[str, float], what: str, example: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{what} must be a positive number with a unit ({', '.join(units)}), but got '{text}'; write for example {example}."
    )


LatencyOption = Annotated[
    float | None, typer.Option("--latency", parser=parse_latency_ms, metavar="TIME", help="At most this latency, such as 12ms.")
]
MemoryOption = Annotated[
    int | None,
    typer.Option("--memory", parser=parse_bytes, metavar="SIZE", help="At most this peak of activations, such as 2MiB."),
]
WeightsOption = Annotated[
    int | None, typer.Option("--weights", parser=parse_bytes, metavar="SIZE", help="At most these bytes of weights, such as 10MB.")
]
MacsOption = Annotated[
    int | None, typer.Option("--macs", parser=parse_count, metavar="COUNT", help="At most these multiply-accumulates, such as 300M.")
]
ParamsOption = Annotated[
    int | None, typer.Option("--params", parser=parse_count, metavar="COUNT", help="At most these parameters, such as 5M.")
]


def given(
    *,
    latency_ms: float | None = None,
    macs: int | None = None,
    params: int | None = None,
    weight_bytes: int | None = None,
    peak_activation_bytes: int | None = None,
) -> dict[str, float]:
    """The budgets that were given, by the names that results use."""
    budgets = {
        "latency_ms": latency_ms,
        "macs": macs,
        "params": params,
        "weight_bytes": weight_bytes,
        "peak_activation_bytes": peak_activation_bytes,
    }
    return {name: value for name, value in budgets.items() if value is not None}
