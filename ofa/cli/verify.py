"""``ofa verify``: compares a bundle's promises and the user's budgets with measurements on the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.budgets import LatencyOption, LeastAccuracyOption, SizeOption, parse_latency_ms
from ofa.cli.console import JsonOption, console, emit, format_bytes, format_conditions, format_ms, format_percent, progress_bar
from ofa.cli.devices import DeviceOption, FoldersOption, SshConfigOption, remark_version
from ofa.cli.keeping import ResumeOption, answering
from ofa.cli.outputs import check_output
from ofa.cli.run_data import load_run_data
from ofa.cli.sheets import records
from ofa.cli.spaces import OwnSpaceOption, check_named, named

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices import Device
    from ofa.data import Images
    from ofa.exporting.bundle import Bundle
    from ofa.exporting.card import Card
    from search.verification.verdict import Verification

__all__ = ["register", "verify"]

_EXAMPLE = "Example: ofa verify network --device pi --latency 12ms --data run"


def register(app: typer.Typer) -> None:
    """Add ``ofa verify``."""
    app.command("verify", epilog=_EXAMPLE)(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `ofa specialize` wrote.")],
    device: DeviceOption,
    latency: LatencyOption = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="IMAGES", help="Images of its classes, to score the file on the device; of a run, its test images."),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, metavar="N", help="Number of images, evenly spread over --data; by default all.")
    ] = None,
    accuracy: LeastAccuracyOption = None,
    size: SizeOption = None,
    pause: Annotated[
        float | None,
        typer.Option(
            "--pause",
            parser=parse_latency_ms,
            metavar="TIME",
            help="Also time calls after a pause, such as 100ms, as in an application.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the inputs.")] = 0,
    space: OwnSpaceOption = None,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    resume: ResumeOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing measurement on the bundle's card.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare a bundle's ONNX file with PyTorch, time it on a device, score it there on images, and compare the results with its card.

    The measured latency is written to the card, unless it has one already and --overwrite is not given. Fails if --latency, --accuracy or
    --size is missed. Every measurement is kept at once: an interrupted command continues with --resume.
    """
    from devices import get_device
    from ofa.errors import BudgetError
    from ofa.exporting.bundle import load_bundle
    from search.verification.bundle import verify_bundle

    if data is None and (accuracy is not None or images is not None):
        raise typer.BadParameter("--accuracy and --images need images; name them with --data.", param_hint="--data")
    measured = get_device(device, folders or (), ssh_config=ssh_config)
    wanted = named(space)
    loaded = load_bundle(bundle)
    check_named(wanted, loaded.space, f"'{bundle}'")
    check_output(loaded.folder / "card.json", overwrite=True)
    asked: dict[str, Any] = {"budget_ms": latency, "least_accuracy": accuracy, "most_bytes": size, "images": images, "pause_ms": pause}
    judging = None if data is None else _read(data, loaded)
    given = {"data": data, "images": images, "pause_ms": pause}
    inputs = {"device": measured.name, "seed": seed, **{name: value for name, value in given.items() if value is not None}}
    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": inputs}
    with (
        answering(bundle, "verify", doing="verifying a bundle", **kept) as steps,
        progress_bar(f"verifying on {measured.name}") as progress,
    ):
        found = verify_bundle(loaded, measured, **asked, data=judging, seed=seed, overwrite=overwrite, progress=progress, steps=steps)
    earlier, report = loaded.card.measured_ms, found.to_json()
    _remark(loaded.card, found, measured)
    emit(report, json=json, render=lambda: _render(report))
    if not found.noted and earlier is not None:
        console.print(f"ofa: the card keeps its earlier {format_ms(earlier)}; add --overwrite to note this measurement", soft_wrap=True)
    if found.missed:
        raise BudgetError(_missed(str(bundle), report))


def _read(data: str, bundle: Bundle) -> Images:
    """The images that score a bundle, preprocessed for its network; those of a run are its test images, as on the card."""
    from ofa.data import load_data
    from ofa.training import load_run
    from ofa.training.checkpoint import CONFIG

    if (Path(data) / CONFIG).is_file():
        return load_run_data(load_run(data)).splits.test
    with progress_bar(f"reading {data}") as progress:
        return load_data(data, rule=bundle.rule, classes=bundle.class_names, progress=progress)


_REMEDIES = {
    "latency": "query the front for a smaller budget, or calibrate its table again",
    "accuracy": "query the front for a more accurate network, or fine-tune this one for longer",
    "size": "query the front with --weights, or export it in another precision",
}


def _missed(bundle: str, report: dict[str, Any]) -> str:
    """One sentence with all missed budgets."""
    missed, judged, where = report["missed"], report["judged"], f"on {report['device']}"
    clauses = []
    if "latency" in missed:
        clauses.append(f"take at most {format_ms(report['budget_ms'])} {where}, but takes {format_ms(report['measured_ms'])}")
    if "accuracy" in missed:
        least, score = format_percent(judged["least_accuracy"]), format_percent(judged["score"])
        clauses.append(f"have {judged['metric']} of at least {least} {where}, but has {score} on {judged['images']:,} images")
    if "size" in missed:
        most, size = format_bytes(report["most_bytes"]), format_bytes(report["file_bytes"])
        clauses.append(f"have a file of at most {most}, but its file has {size}")
    remedy = _REMEDIES[missed[0]] if len(missed) == 1 else "query the front for a network that keeps all of them"
    return f"'{bundle}' must {', and must '.join(clauses)}; {remedy}"


def _remark(card: Card, found: Verification, device: Device) -> None:
    """Print a remark on stderr if a card's promise and the measurement have different conditions."""
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
    columns = ("", "found", "held against", "verdict")
    rows = [*_rows_of_time(report), *(_rows_of_images(report["judged"]) if report["judged"] else [])]
    rows.append(("outputs, noise", f"{report['difference']:.1e} of the scale", "PyTorch's", ""))
    size = "" if report["most_bytes"] is None else f"at most {format_bytes(report['most_bytes'])}"
    rows.append(("file", format_bytes(report["file_bytes"]), size, _word(report["within_bytes"])))
    caption = f"Timed as {format_conditions(report['conditions'])}; median of {report['timing']['repeats']}."
    if report["judged"] is not None:
        caption += f" Judged on {report['judged']['images']:,} images; 90 % of sets of so many are within ±."
    return records(columns, rows, title=f"{report['name']} on {report['device']}", caption=caption)


def _rows_of_time(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    budget = "" if report["budget_ms"] is None else f"at most {format_ms(report['budget_ms'])}"
    rows = [
        ("measured, median", format_ms(report["measured_ms"]), budget, _word(report["within_budget"])),
        ("measured, p90", format_ms(report["timing"]["p90_ms"]), "", ""),
    ]
    if report["error"] is not None:
        interval = f"{format_ms(report['latency_low_ms'])} .. {format_ms(report['latency_high_ms'])}"
        promise = interval if report["within_interval"] is not None else format_ms(report["latency_ms"])
        rows.append(("promised", f"{100 * report['error']:+.1f} %", promise, _word(report["within_interval"], "holds", "differs")))
    if (paused := report["paused"]) is not None:
        rows.append((f"after {paused['pause_ms']:g} ms, median", format_ms(paused["median_ms"]), "", ""))
        rows.append((f"after {paused['pause_ms']:g} ms, p90", format_ms(paused["p90_ms"]), "", ""))
    return rows


def _rows_of_images(judged: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    metric, score = judged["metric"], format_percent(judged["score"])
    if judged["spread"] is not None:
        score += f" ± {format_percent(judged['spread'])}"
    least = "" if judged["least_accuracy"] is None else f"at least {format_percent(judged['least_accuracy'])}"
    rows = [
        (metric, score, least, _word(judged["accurate_enough"])),
        (f"{metric}, PyTorch", format_percent(judged["pytorch_score"]), "", ""),
    ]
    if judged["promised_accuracy"] is not None:
        away = f"{100 * (judged['score'] - judged['promised_accuracy']):+.1f} points"
        said = f"{format_percent(judged['promised_accuracy'])} on the card"
        rows.append((f"{metric}, card", away, said, _word(judged["accuracy_holds"], "holds", "differs")))
    rows.append(("same class", format_percent(judged["same_class"]), "PyTorch's", ""))
    rows.append(("outputs, images", f"{judged['difference']:.1e} of the scale", "PyTorch's", ""))
    return rows


def _word(verdict: bool | None, kept: str = "kept", missed: str = "missed") -> str:
    return "" if verdict is None else kept if verdict else missed
