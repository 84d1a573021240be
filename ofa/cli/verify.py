"""``ofa verify``: what a bundle promises, and what its network does on the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import LatencyOption
from ofa.cli.console import JsonOption, console, emit, format_conditions, format_ms, progress_bar
from ofa.cli.devices import DeviceOption, FoldersOption, SshConfigOption, remark_version
from ofa.cli.keeping import ResumeOption, answering
from ofa.cli.outputs import check_output
from ofa.cli.sheets import facts
from ofa.cli.spaces import OwnSpaceOption, check_named, named

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices import Device
    from ofa.exporting.card import Card
    from search.verification.bundle import Verification

__all__ = ["register", "verify"]

_EXAMPLE = "Example: ofa verify digits.bundle --device local-cpu --latency 2ms"


def register(app: typer.Typer) -> None:
    """Add ``ofa verify``."""
    app.command("verify", epilog=_EXAMPLE)(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `ofa specialize` wrote.")],
    device: DeviceOption,
    latency: LatencyOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the inputs.")] = 0,
    space: OwnSpaceOption = None,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    resume: ResumeOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a measurement that is on the bundle's card already.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare a bundle's ONNX file with PyTorch, time it on a device, compare that with its card, and note it there.

    A measurement that is on the card already stays, unless --overwrite is given. Fails if --latency is missed. What is measured is kept
    at once: a command that was cut off goes on with --resume.
    """
    import numpy as np

    from devices import get_device
    from ofa.errors import BudgetError
    from ofa.exporting.bundle import load_bundle
    from search.verification.bundle import note_on_card, noting, subject_of_bundle
    from search.verification.bundle import verify as run

    measured = get_device(device, folders or (), ssh_config=ssh_config)
    wanted = named(space)
    loaded = load_bundle(bundle)
    check_named(wanted, loaded.space, f"'{bundle}'")
    subject = subject_of_bundle(loaded, measured, latency)
    check_output(loaded.folder / "card.json", overwrite=True)
    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": {"device": measured.name, "seed": seed}}
    with noting(loaded, measured.name, overwrite=overwrite), answering(bundle, "verify", doing="verifying a bundle", **kept) as steps:
        with progress_bar(f"timing on {measured.name}") as progress:
            (found,) = run([subject], measured, rng=np.random.default_rng(seed), progress=progress, steps=steps)
        earlier = loaded.card.measured_ms
        noted = note_on_card(loaded, found, overwrite=overwrite)
    report = {**found.to_json(), "promised_under": loaded.card.conditions, "noted": noted}
    _remark(loaded.card, found, measured)
    emit(report, json=json, render=lambda: _render(report))
    if not noted and earlier is not None:
        console.print(f"ofa: the card keeps its earlier {format_ms(earlier)}; add --overwrite to note this measurement", soft_wrap=True)
    if found.within_budget is False:
        raise BudgetError(
            f"'{bundle}' must take at most {format_ms(report['budget_ms'])} on {measured.name}, but takes "
            f"{format_ms(report['measured_ms'])}; query the front for a smaller budget, or calibrate its table again"
        )


def _remark(card: Card, found: Verification, device: Device) -> None:
    """Say on stderr in what the promise of a card and a measurement are of different conditions."""
    from devices import Conditions
    from search.verification.bundle import other_settings

    other = other_settings(card, device)
    if other is not None:
        console.print(
            f"The card's promise of {format_ms(card.latency_ms or 0)} is not compared: it is of {other.words}; "
            "specialize from a front of these settings, or verify with those.",
            highlight=False,
        )
    elif found.promise is not None and found.conditions is not None and card.conditions is not None:
        promised = Conditions.from_json(card.conditions)
        remark_version(promised, found.conditions.runtime_version, "The blocks behind the card's promise were")


def _render(report: dict[str, Any]) -> RenderableType:
    rows = []
    if report["latency_ms"] is not None:
        rows.append(("promised", format_ms(report["latency_ms"])))
        if report["within_interval"] is not None:
            words = "holds" if report["within_interval"] else "does not hold"
            rows.append(("interval", f"{format_ms(report['latency_low_ms'])} .. {format_ms(report['latency_high_ms'])}, {words}"))
    rows.append(("measured", f"{format_ms(report['measured_ms'])} (median of {report['timing']['repeats']})"))
    rows.append(("timed as", format_conditions(report["conditions"])))
    if report["error"] is not None:
        rows.append(("measured against promised", f"{100 * report['error']:+.1f} %"))
    if report["within_budget"] is not None:
        rows.append(("budget", f"{format_ms(report['budget_ms'])}, {'kept' if report['within_budget'] else 'missed'}"))
    rows.append(("ONNX against PyTorch", f"{report['difference']:.1e} of the output's scale"))
    return facts(rows, title=f"{report['name']} on {report['device']}")
