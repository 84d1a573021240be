"""``ofa query``: the best networks of a front for a budget, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import LatencyOption, MacsOption, MemoryOption, ParamsOption, WeightsOption, given
from ofa.cli.console import JsonOption, emit, format_bytes, format_count, format_ms, format_percent

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["query", "register"]

_EXAMPLE = "Example: ofa query digits.front --latency 2ms --memory 64KiB --top 3"


def register(app: typer.Typer) -> None:
    """Add ``ofa query``."""
    app.command("query", epilog=_EXAMPLE)(query)


def query(
    front: Annotated[Path, typer.Argument(metavar="FRONT", help="File that `ofa search` wrote.")],
    latency: LatencyOption = None,
    macs: MacsOption = None,
    params: ParamsOption = None,
    weights: WeightsOption = None,
    memory: MemoryOption = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="Compare --latency with the expected latency, not with the upper end of its interval.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="How many networks, best first.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="ARCH", help="Also write the best network's arch as JSON.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """The most accurate networks that keep a budget."""
    from search.budget import Budget
    from search.front import Front, ImpossibleBudgetError

    limits = given(latency_ms=latency, macs=macs, params=params, weight_bytes=weights, peak_activation_bytes=memory)
    loaded = Front.load(front)
    answer: dict[str, Any] = {"device": loaded.device_name, "budget": limits}
    try:
        found = loaded.query(Budget.from_mapping(limits, expected_latency=expected), top)
    except ImpossibleBudgetError as error:
        if json:
            emit({**answer, "results": [], "least": error.binding}, json=True, render=lambda: "")
        raise
    answer["results"] = [candidate.to_json() for candidate in found]
    if output is not None:
        found[0].arch.save(output)
    emit(answer, json=json, render=lambda: _render(answer))


def _render(answer: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    title = f"{len(answer['results'])} best on {answer['device']}"
    table = Table("", "accuracy", "latency", "interval", "MACs", "params", "weights", "activations", "network", title=title)
    for place, network in enumerate(answer["results"], start=1):
        low, high = network["latency_low_ms"], network["latency_high_ms"]
        table.add_row(
            str(place),
            format_percent(network["accuracy"]),
            format_ms(network["latency_ms"]),
            f"{format_ms(low)} .. {format_ms(high)}" if low < high else "unknown",
            format_count(network["macs"]),
            format_count(network["params"]),
            format_bytes(network["weight_bytes"]),
            format_bytes(network["peak_activation_bytes"]),
            _in_words(network["arch"]),
        )
    return table


def _in_words(arch: dict[str, Any]) -> str:
    """A network in short: its resolution and the depths of its stages."""
    return f"{arch['resolution']} px, blocks {'-'.join(str(len(stage)) for stage in arch['stages'])}"
