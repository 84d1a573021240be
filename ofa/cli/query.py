"""``ofa query``: answers a budget with the best networks of a front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import Accuracy, Energies, ExpectedOption, Latencies, budget_of, taking_costs
from ofa.cli.console import (
    JsonOption,
    emit,
    format_bytes,
    format_conditions,
    format_count,
    format_ms,
    format_percent,
    remark,
    warn,
)
from ofa.cli.devices import FoldersOption, SshConfigOption
from ofa.cli.keeping import ResumeOption
from ofa.cli.outputs import OverwriteOption, check_output
from ofa.cli.sheets import line, records, words
from ofa.cli.spaces import OwnSpaceOption, check_named, named
from ofa.cli.verifying import Verification, typed_devices, verified

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["query", "register"]

_EXAMPLE = "Example: ofa query run.front --latency 12ms --memory 64KiB --top 3"


def register(app: typer.Typer) -> None:
    """Add ``ofa query``."""
    app.command("query", epilog=_EXAMPLE)(taking_costs(query))


def query(
    front: Annotated[Path, typer.Argument(metavar="FRONT", help="File that `ofa search` wrote.")],
    latency: Latencies = None,
    energy: Energies = None,
    counts: Any = None,
    accuracy: Accuracy = None,
    expected: ExpectedOption = False,
    top: Annotated[int, typer.Option(min=1, help="Number of networks, best first.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="ARCH", help="Also write the best network's arch as JSON.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Time networks on the device, and answer with the ones that keep the budget there.")
    ] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="With --verify, the device: its name, or the path of its TOML file; with several precisions one device for each.",
        ),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option("--table", metavar="TABLE", help="With --verify, the device's latency table, to combine with the measurements."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="With --verify, store the measurements in FRONT, and update TABLE with them.")
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.5, help="With --verify, safety margin for drift of the machine's speed, a share; 0.025 by default."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the inputs of --verify.")] = 0,
    space: OwnSpaceOption = None,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Answer a budget with the most accurate networks that keep it, as predicted or on the device.

    Only ARCH is written, unless --verify is given with --update. Measurements of --verify are kept until it ends: an interrupted command
    continues with --resume.
    """
    from search.advice import advice_on_budget, advice_on_front
    from search.front.front import Front
    from search.front.infeasible import ImpossibleBudgetError

    if not verify and (device or table or margin is not None or update or resume):
        options = "--device, --table, --margin, --update, --resume"
        raise typer.BadParameter("these belong to --verify; add it, or leave them out.", param_hint=options)
    if output is not None:
        check_output(output, overwrite=overwrite, ending=".json")
    budget = budget_of(latency=latency, energy=energy, counts=counts, accuracy=accuracy, expected=expected)
    wanted = named(space)
    loaded = Front.load(front)
    if wanted is not None:
        check_named(wanted, loaded.space, f"'{front}'")
    devices = loaded.device_names
    answer: dict[str, Any] = {"device": next(iter(devices), None), "devices": list(devices), "budget": budget.to_json()}
    answer |= {"accuracy_source": loaded.info.accuracy_source, "metric": loaded.info.metric}
    answer["conditions"] = {name: each.to_json() for name, each in loaded.conditions.items()}
    try:
        if verify:
            timed_on = typed_devices(device or (), loaded, folders or (), ssh_config)
            verification = Verification(timed_on, tuple(table or ()), update, margin, seed, resume, overwrite)
            verified(answer, loaded, front, budget, verification, top)
        else:
            answer["results"] = [candidate.to_json() for candidate in loaded.query(budget, top)]
    except ImpossibleBudgetError as error:
        if json:
            emit({**answer, "results": [], "least": error.binding, "nearest": error.nearest}, json=True, render=lambda: "")
        raise
    answer["not_searched"] = list(loaded.unsearched(budget))
    warnings = warn([*advice_on_front(loaded), *advice_on_budget(budget, loaded.columns, devices)])
    if output is not None:
        from ofa.arch import Arch
        from ofa.families import save_arch

        best = answer["results"][0]
        save_arch(Arch.from_json(best["arch"]), loaded.space, output)
        if "precision" in best:
            remark(f"the network was chosen in {best['precision']}, which '{output}' does not record; `ofa specialize --front` keeps it")
    emit(answer, json=json, render=lambda: _render(answer), warnings=warnings)


def _render(answer: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    from ofa.arch import Arch

    devices = answer["devices"]
    title = f"{len(answer['results'])} best on {', '.join(devices)}" if devices else f"{len(answer['results'])} best"
    latencies = [f"latency on {device}" for device in devices]
    measured = ["measured"] if "dropped" in answer else []
    accuracy = f"{answer['metric']}, {answer['accuracy_source']}" if answer["accuracy_source"] else answer["metric"]
    several = any("precision" in network for network in answer["results"])
    columns = ("", accuracy, *["precision"] * several, *latencies, *measured, "MACs", "params", "weights", "activations", "network")
    rows = [
        (
            str(place),
            _accuracy(network),
            *[network.get("precision", "")] * several,
            *(_latency(network["devices"][device]) for device in devices),
            *([_measured(network)] if measured else []),
            format_count(network["macs"]),
            format_count(network["params"]),
            format_bytes(network["weight_bytes"]),
            format_bytes(network["peak_activation_bytes"]),
            Arch.from_json(network["arch"]).in_words,
        )
        for place, network in enumerate(answer["results"], start=1)
    ]
    return Group(records(columns, rows, title=title), *map(words, _sentences(answer)), *map(line, answer.get("updated", [])))


def _sentences(answer: dict[str, Any]) -> list[str]:
    """The sentences below the networks."""
    from search.units import called

    said = [f"Latency on {name}: {format_conditions(each)}." for name, each in answer["conditions"].items()]
    said += [f"Dropped: {_dropped(each)}, {each['reason']}" for each in answer.get("dropped", [])]
    if answer["not_searched"]:
        costs = ", ".join(map(called, answer["not_searched"]))
        said.append(f"The search did not trade accuracy against {costs}: the budget is kept, but a better network may exist.")
    if answer.get("updated"):
        said.append("The measurements are stored in:")
    elif "updated" in answer:
        table = ", and the table of --table" if answer["learned"] else ""
        said.append(f"Nothing was written: add --update to store the measurements in the front{table}.")
    return said


def _dropped(network: dict[str, Any]) -> str:
    return format_percent(network["accuracy"]) + (f" in {network['precision']}" if "precision" in network else "")


def _measured(network: dict[str, Any]) -> str:
    used = "" if network["budget_used"] is None else f", {format_percent(network['budget_used'])} of the budget"
    return format_ms(network["measured_ms"]) + used


def _accuracy(network: dict[str, Any]) -> str:
    low, high = network["accuracy_low"], network["accuracy_high"]
    interval = "" if low is None or high is None else f" ({100 * low:.1f} .. {100 * high:.1f})"
    return format_percent(network["accuracy"]) + interval


def _latency(device: dict[str, Any]) -> str:
    low, high = device["latency_low_ms"], device["latency_high_ms"]
    interval = f" ({format_ms(low)} .. {format_ms(high)})" if low < high else ""
    energy = f", {device['energy_mj']:.3g} mJ" if "energy_mj" in device else ""
    return format_ms(device["latency_ms"]) + interval + energy
