"""``ofa query``: the best networks of a front for a budget, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import Accuracy, Energies, ExpectedOption, Latencies, Macs, Memory, Params, Weights, budget_of
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
    latency: Latencies = None,
    energy: Energies = None,
    macs: Macs = None,
    params: Params = None,
    weights: Weights = None,
    memory: Memory = None,
    accuracy: Accuracy = None,
    expected: ExpectedOption = False,
    top: Annotated[int, typer.Option(min=1, help="How many networks, best first.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="ARCH", help="Also write the best network's arch as JSON.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """The most accurate networks that keep a budget."""
    from search.front import Front
    from search.impossible import ImpossibleBudgetError

    budget = budget_of(
        latency=latency, energy=energy, macs=macs, params=params, weights=weights, memory=memory, accuracy=accuracy, expected=expected
    )
    loaded = Front.load(front)
    devices = loaded.device_names
    answer: dict[str, Any] = {"device": next(iter(devices), None), "devices": list(devices), "budget": budget.to_json()}
    try:
        found = loaded.query(budget, top)
    except ImpossibleBudgetError as error:
        if json:
            emit({**answer, "results": [], "least": error.binding, "nearest": error.nearest}, json=True, render=lambda: "")
        raise
    answer["results"] = [candidate.to_json() for candidate in found]
    answer["not_searched"] = list(loaded.unsearched(budget))
    if output is not None:
        found[0].arch.save(output)
    emit(answer, json=json, render=lambda: _render(answer))


def _render(answer: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    devices = answer["devices"]
    title = f"{len(answer['results'])} best on {', '.join(devices)}" if devices else f"{len(answer['results'])} best"
    latencies = [f"latency on {device}" for device in devices]
    table = Table("", "accuracy", *latencies, "MACs", "params", "weights", "activations", "network", title=title)
    for place, network in enumerate(answer["results"], start=1):
        table.add_row(
            str(place),
            _accuracy(network),
            *(_latency(network["devices"][device]) for device in devices),
            format_count(network["macs"]),
            format_count(network["params"]),
            format_bytes(network["weight_bytes"]),
            format_bytes(network["peak_activation_bytes"]),
            _in_words(network["arch"]),
        )
    if not answer["not_searched"]:
        return table
    costs = ", ".join(answer["not_searched"])
    words = f"The search did not trade accuracy against {costs}: the budget is kept, but a better network may exist."
    return Group(table, words)


def _accuracy(network: dict[str, Any]) -> str:
    low, high = network["accuracy_low"], network["accuracy_high"]
    interval = "" if low is None or high is None else f" ({100 * low:.1f} .. {100 * high:.1f})"
    return format_percent(network["accuracy"]) + interval


def _latency(device: dict[str, Any]) -> str:
    low, high = device["latency_low_ms"], device["latency_high_ms"]
    interval = f" ({format_ms(low)} .. {format_ms(high)})" if low < high else ""
    energy = f", {device['energy_mj']:.3g} mJ" if "energy_mj" in device else ""
    return format_ms(device["latency_ms"]) + interval + energy


def _in_words(arch: dict[str, Any]) -> str:
    """A network in short: its resolution and the depths of its stages."""
    return f"{arch['resolution']} px, blocks {'-'.join(str(len(stage)) for stage in arch['stages'])}"
