"""Budgets as people write them: a positive number with its unit, such as ``12ms``, ``2MiB``, ``300M``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from search.budget import Budget

__all__ = [
    "Accuracy",
    "Energies",
    "ExpectedOption",
    "Latencies",
    "LatencyOption",
    "Macs",
    "MacsOption",
    "Memory",
    "MemoryOption",
    "Params",
    "ParamsOption",
    "Range",
    "Weights",
    "WeightsOption",
    "budget_of",
    "given",
    "parse_bytes",
    "parse_count",
    "parse_energy_mj",
    "parse_latency_ms",
    "parse_percent",
    "range_parser",
]


def _parser(column: str) -> Callable[[str], Any]:
    """A parser of values of a column, whose errors are wrong usage."""

    def parse(text: str) -> float:
        from ofa.errors import SearchError
        from search.units import read_typed

        try:
            return read_typed(column, text)
        except SearchError as error:
            raise typer.BadParameter(f"{error}.") from error

    return parse


parse_latency_ms = _parser("latency_ms")
parse_bytes = _parser("weight_bytes")
parse_count = _parser("macs")
parse_energy_mj = _parser("energy_mj")
parse_percent = _parser("accuracy")


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


# -- ranges, and budgets of several devices: what a front is asked for ---------------------------------------------------


@dataclass(frozen=True)
class Range:
    """What a number may be, and on which device: ``12ms``, ``10ms..12ms``, ``10ms..``, ``pi=12ms``."""

    least: float | None = None
    most: float | None = None
    device: str = ""


def range_parser(parse: Callable[[str], float], *, alone: str = "most", of_device: bool = False) -> Callable[[str], Range]:
    """A parser of ranges.

    Args:
        parse: of a number with its unit.
        alone: which end a number alone is.
        of_device: whether ``NAME=`` may stand in front.
    """

    def parse_range(text: str) -> Range:
        device, _, rest = text.rpartition("=") if of_device else ("", "", text)
        if ".." not in rest:
            return Range(**{alone: parse(rest)}, device=device.strip())
        least, _, most = rest.partition("..")
        ends = [parse(end) if end.strip() else None for end in (least, most)]
        if ends == [None, None]:
            parse(rest)  # raises, and says what a number looks like
        if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
            raise typer.BadParameter(f"a range must go from its least to its most, but got '{text}'; swap its ends.")
        return Range(least=ends[0], most=ends[1], device=device.strip())

    return parse_range


def _range_option(name: str, parse: Callable[[str], Range], metavar: str, words: str) -> Any:
    return typer.Option(name, parser=parse, metavar=metavar, help=words)


Latencies = Annotated[
    list[Range] | None,
    _range_option(
        "--latency",
        range_parser(parse_latency_ms, of_device=True),
        "[DEVICE=]TIME",
        "At most this latency, such as 12ms; of several devices once each, such as pi=12ms. Ranges: 10ms..12ms.",
    ),
]
Energies = Annotated[
    list[Range] | None,
    _range_option(
        "--energy", range_parser(parse_energy_mj, of_device=True), "[DEVICE=]ENERGY", "At most this energy of one call, such as 20mJ."
    ),
]
Memory = Annotated[
    Range | None, _range_option("--memory", range_parser(parse_bytes), "SIZE", "At most this peak of activations, such as 2MiB.")
]
Weights = Annotated[
    Range | None, _range_option("--weights", range_parser(parse_bytes), "SIZE", "At most these bytes of weights, such as 10MB.")
]
Macs = Annotated[
    Range | None, _range_option("--macs", range_parser(parse_count), "COUNT", "At most these multiply-accumulates, such as 300M.")
]
Params = Annotated[Range | None, _range_option("--params", range_parser(parse_count), "COUNT", "At most these parameters, such as 5M.")]
Accuracy = Annotated[
    Range | None,
    _range_option("--accuracy", range_parser(parse_percent, alone="least"), "PERCENT", "At least this accuracy, such as 76%."),
]
ExpectedOption = Annotated[
    bool, typer.Option("--expected", help="Compare --latency with the expected latency, not with the upper end of its interval.")
]


def budget_of(
    *,
    latency: Sequence[Range] | None = None,
    energy: Sequence[Range] | None = None,
    macs: Range | None = None,
    params: Range | None = None,
    weights: Range | None = None,
    memory: Range | None = None,
    accuracy: Range | None = None,
    expected: bool = False,
) -> Budget:
    """The budget that options say.

    Raises:
        SearchError: as ``Budget``.
        typer.BadParameter: a device has two limits of one kind.
    """
    from search.budget import Bound, Budget
    from search.units import called

    named = [("latency_ms", each) for each in latency or ()] + [("energy_mj", each) for each in energy or ()]
    named += [
        (name, each)
        for name, each in (
            ("macs", macs),
            ("params", params),
            ("weight_bytes", weights),
            ("peak_activation_bytes", memory),
            ("accuracy", accuracy),
        )
        if each is not None
    ]
    bounds: dict[str, Bound] = {}
    for name, each in named:
        key = f"{name}@{each.device}" if each.device else name
        if key in bounds:
            raise typer.BadParameter(f"{called(key)} must have one limit, but got two; leave one out, or write a range such as 10ms..12ms.")
        bounds[key] = Bound(most=each.most, least=each.least)
    return Budget(bounds, expected_latency=expected)
