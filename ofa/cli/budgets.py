"""Budgets on the command line: a positive number with its unit, such as ``12ms``, ``2MiB``, ``300M``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ofa.costs import COSTS

if TYPE_CHECKING:
    from search.budget import Budget

__all__ = [
    "Accuracy",
    "Energies",
    "ExpectedOption",
    "Latencies",
    "LatencyOption",
    "LeastAccuracyOption",
    "Range",
    "SizeOption",
    "budget_of",
    "parse_energy_mj",
    "parse_latency_ms",
    "parse_percent",
    "parser_of",
    "range_parser",
    "taking_costs",
]


def parser_of(column: str) -> Callable[[str], Any]:
    """A parser of a column's values, which raises ``typer.BadParameter``."""

    def parse(text: str) -> float:
        from ofa.errors import SearchError
        from search.units import read_typed

        try:
            return read_typed(column, text)
        except SearchError as error:
            raise typer.BadParameter(f"{error}.") from error

    return parse


parse_latency_ms = parser_of("latency_ms")
parse_energy_mj = parser_of("energy_mj")
parse_percent = parser_of("accuracy")
parse_size = parser_of("weight_bytes")


LatencyOption = Annotated[
    float | None, typer.Option("--latency", parser=parse_latency_ms, metavar="TIME", help="At most this latency, such as 12ms.")
]
LeastAccuracyOption = Annotated[
    float | None,
    typer.Option("--accuracy", parser=parse_percent, metavar="PERCENT", help="At least this accuracy on the images, such as 76%."),
]
SizeOption = Annotated[
    int | None, typer.Option("--size", parser=parse_size, metavar="SIZE", help="At most this size of the file, such as 2MiB.")
]
Command = Callable[..., Any]


def taking_costs(command: Command, *, ranges: bool = True) -> Command:
    """Replace a command's parameter ``counts`` by one option per cost; ``counts`` receives their values by the costs' names.

    Args:
        command: the function of a command, with annotated arguments.
        ranges: whether the options take a ``Range``, or only an upper limit.
    """
    costs = [COSTS.get(name) for name in COSTS.names()]

    @wraps(command)
    def run(**options: Any) -> Any:
        given = {cost.name: options.pop(cost.option) for cost in costs}
        return command(**options, counts={name: value for name, value in given.items() if value is not None})

    hints, parameters = get_type_hints(command, include_extras=True), list[Parameter]()
    for parameter in signature(command).parameters.values():
        if parameter.name != "counts":
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        for cost in costs:
            parse = parser_of(cost.name)
            option = typer.Option(
                f"--{cost.option}",
                parser=range_parser(parse) if ranges else parse,
                metavar={"count": "COUNT", "bytes": "SIZE"}[cost.unit],
                help=f"At most {cost.help}, such as {cost.example}.",
            )
            annotation: Any = Annotated[Range | None, option] if ranges else Annotated[int | None, option]
            parameters.append(Parameter(cost.option, parameter.kind, default=None, annotation=annotation))
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


# -- ranges, and budgets of several devices: what a front is asked for ---------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Lower and upper limit of a number, perhaps on a device: ``12ms``, ``10ms..12ms``, ``10ms..``, ``pi=12ms``."""

    least: float | None = None
    most: float | None = None
    device: str = ""


def range_parser(parse: Callable[[str], float], *, alone: str = "most", of_device: bool = False) -> Callable[[str], Range]:
    """A parser of ranges.

    Args:
        parse: parser of a number with its unit.
        alone: the limit that a single number sets: ``most`` or ``least``.
        of_device: whether ``NAME=`` may precede the range.
    """

    def parse_range(text: str) -> Range:
        device, _, rest = text.rpartition("=") if of_device else ("", "", text)
        if ".." not in rest:
            return Range(**{alone: parse(rest)}, device=device.strip())
        least, _, most = rest.partition("..")
        ends = [parse(end) if end.strip() else None for end in (least, most)]
        if ends == [None, None]:
            parse(rest)  # raises an error with an example of a number
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
    counts: Mapping[str, Range] | None = None,
    accuracy: Range | None = None,
    expected: bool = False,
) -> Budget:
    """The budget of the options.

    Raises:
        SearchError: as ``Budget``.
        typer.BadParameter: a device has two limits of one kind.
    """
    from search.budget import Bound, Budget
    from search.units import called

    named = [("latency_ms", each) for each in latency or ()] + [("energy_mj", each) for each in energy or ()]
    named += [*(counts or {}).items(), *([("accuracy", accuracy)] if accuracy is not None else [])]
    bounds: dict[str, Bound] = {}
    for name, each in named:
        key = f"{name}@{each.device}" if each.device else name
        if key in bounds:
            raise typer.BadParameter(f"{called(key)} must have one limit, but got two; leave one out, or write a range such as 10ms..12ms.")
        bounds[key] = Bound(most=each.most, least=each.least)
    return Budget(bounds, expected_latency=expected)
