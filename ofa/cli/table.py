"""``ofa table``: builds, calibrates, checks and shows latency tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, console, emit, format_conditions, format_ms, format_percent, progress_bar, warn
from ofa.cli.devices import DeviceOption, FoldersOption, SshConfigOption, remark_version
from ofa.cli.keeping import ResumeOption, answering, has_ended, making
from ofa.cli.outputs import PARQUET, REMEDY, OverwriteOption, check_folder, check_output
from ofa.cli.sheets import Name, facts
from ofa.cli.spaces import parse_resolutions
from ofa.cli.table_import import import_group
from ofa.cli.table_summary import summary_of
from ofa.cli.table_transfer import transfer
from ofa.locking import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from latency_tables import TableCheck
    from ofa.space import Space

__all__ = ["register"]

_EXAMPLE = "Example: ofa table build --space run --device local-cpu -o cpu.parquet"

SpaceOption = Annotated[str, typer.Option("--space", metavar="SPACE", help="The space: a name, a space file, a run, or module:attribute.")]
ClassesOption = Annotated[int | None, typer.Option("--classes", min=2, help="Classes of your data, if other than the space's.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of networks, weights and order.")]
TableArgument = Annotated[Path, typer.Argument(metavar="TABLE", help="A latency table.")]


ResolutionsOption = Annotated[
    Any,
    typer.Option("--resolutions", parser=parse_resolutions, metavar="LIST", help="Input sizes in pixels: 24,32x24; all by default."),
]


def register(app: typer.Typer) -> None:
    """Add ``ofa table``."""
    group = typer.Typer(help="Latency tables: what the blocks of a space cost on a device.", epilog=_EXAMPLE, no_args_is_help=True)
    group.command("build", epilog=_EXAMPLE)(build)
    group.command("calibrate", epilog="Example: ofa table calibrate cpu.parquet --space run --device local-cpu")(calibrate)
    group.command("check", epilog="Example: ofa table check cpu.parquet --space run --device local-cpu --nets 30")(check)
    group.command("show", epilog="Example: ofa table show cpu.parquet --csv cpu.csv")(show)
    group.command("transfer", epilog="Example: ofa table transfer cpu.parquet --space run --device pi.toml -o pi.parquet")(transfer)
    group.add_typer(import_group(), name="import")
    app.add_typer(group, name="table")


def build(
    space: SpaceOption,
    device: DeviceOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE", help="Where to write the table.")],
    resolutions: ResolutionsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an existing table: measure only missing blocks.")] = False,
    overwrite: OverwriteOption = False,
    classes: ClassesOption = None,
    seed: SeedOption = 0,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Time every block of a space on a device.

    Every measurement is kept at once: an interrupted build continues with --resume.
    """
    import numpy as np

    from devices import get_device
    from latency_tables import Journal, LatencyTable, build_table
    from ofa.errors import TableError

    with Journal(output, resume=resume, overwrite=overwrite) as journal:
        remedy = "add --resume to continue it, name another file, or add --overwrite"
        check_output(output, overwrite=overwrite or resume, remedy=remedy, ending=PARQUET)
        chosen, measured = _space(space, classes), get_device(device, folders or (), ssh_config=ssh_config)
        old = LatencyTable.load(output) if resume and output.exists() else None
        told = f"{journal.damaged} lines of '{journal.path}' are damaged; their blocks are measured again"
        warnings = warn([told] if journal.damaged else [])
        rng = np.random.default_rng(seed)
        with progress_bar(f"blocks of {chosen.name}") as progress:
            table = build_table(chosen, measured, resolutions=resolutions, rng=rng, progress=progress, resume_from=old, journal=journal)
        table.save(output)
        journal.finish()
    if old is not None and old.correction is not None and table.correction is None:
        console.print("The table has new blocks: calibrate it again.", highlight=False)
    report = {**summary_of(table, output), "measured": len(table) - (0 if old is None else len(old))}
    emit(report, json=json, render=lambda: _render(report), warnings=warnings)
    failed = table.info.failed
    if failed:
        first = next(iter(failed))
        raise TableError(
            f"all blocks must be measured, but {len(failed)} could not be, first {first}: {failed[first]}; the others are in '{output}': "
            "try these again with --resume"
        )


def calibrate(
    table: TableArgument,
    space: SpaceOption,
    device: DeviceOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="File of the calibrated table; by default TABLE.")
    ] = None,
    nets: Annotated[int, typer.Option(help="Whole networks to time.")] = 20,
    resolutions: ResolutionsOption = None,
    classes: ClassesOption = None,
    seed: SeedOption = 0,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Time whole networks, and store in the table a correction from the sum of blocks to them, with an interval.

    An existing calibration is replaced only with --overwrite. Every measurement is kept at once: an interrupted command continues with
    --resume.
    """
    import numpy as np

    from devices import get_device
    from latency_tables import LatencyTable, calibrate_table
    from latency_tables.advice import advice_on_table

    chosen, measured = _space(space, classes), get_device(device, folders or (), ssh_config=ssh_config)
    target = table if output is None else output
    remedy = "it is calibrated already: name another file with -o, or add --overwrite" if output is None else REMEDY
    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": {"seed": seed, "nets": nets}, "remedy": remedy, "ending": PARQUET}
    check_folder(target)
    with writing(target, "calibrating a table"):
        loaded = LatencyTable.load(table)
        adds = output is None and loaded.correction is None
        with making(target, "calibrate", doing="calibrating a table", adds=adds, **kept) as journal:
            if not adds and has_ended(target, journal, resume=resume, overwrite=overwrite):
                calibrated = LatencyTable.load(target)
            else:
                rng = np.random.default_rng(seed)
                with progress_bar(f"networks of {chosen.name}") as progress:
                    calibrated = calibrate_table(
                        loaded, chosen, measured, nets=nets, resolutions=resolutions, rng=rng, progress=progress, steps=journal
                    )
                calibrated.save(target)
    remark_version(loaded.conditions, calibrated.info.calibrated_with, "The table's blocks were")
    report = summary_of(calibrated, target)
    emit(report, json=json, render=lambda: _render(report), warnings=warn(advice_on_table(calibrated.info)))


def check(
    table: TableArgument,
    space: SpaceOption,
    device: DeviceOption,
    nets: Annotated[int, typer.Option(help="Random networks to time.")] = 20,
    resolutions: ResolutionsOption = None,
    classes: ClassesOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the networks; it must differ from the calibration's.")] = 1,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Also draw estimates against measurements, as PNG.")] = None,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Time random networks twice, and compare the two measurements with the table and with each other.

    Every measurement is kept at once: an interrupted command continues with --resume.
    """
    import numpy as np

    from devices import get_device
    from latency_tables import LatencyTable, check_table
    from latency_tables.advice import advice_on_check

    if plot is not None:
        check_output(plot, overwrite=overwrite, ending=".png")
    loaded, chosen, measured = LatencyTable.load(table), _space(space, classes), get_device(device, folders or (), ssh_config=ssh_config)
    inputs = {"space": chosen.to_json(), "device": measured.name, "seed": seed, "nets": nets, "resolutions": resolutions}
    with answering(table, "check", doing="checking a table", resume=resume, overwrite=overwrite, inputs=inputs) as steps:
        rng = np.random.default_rng(seed)
        with progress_bar(f"networks of {chosen.name}") as progress:
            found = check_table(loaded, chosen, measured, nets=nets, resolutions=resolutions, rng=rng, progress=progress, steps=steps)
        if plot is not None:
            from latency_tables.plot import save_check_plot

            save_check_plot(found, plot, title=f"{chosen.name} on {measured.name}")
    conditions = None if found.conditions is None else found.conditions.to_json()
    remark_version(loaded.conditions, conditions["runtime_version"] if conditions else None, "The table's blocks were")
    report = {**_figures(found), "table": str(table), "device": measured.name, "conditions": conditions, "networks": _networks(found)}
    emit(report, json=json, render=lambda: _render_check(report), warnings=warn(advice_on_check(found)))


def show(
    table: TableArgument,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Also write the rows as CSV.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Show the contents of a table, and its origin."""
    from latency_tables import LatencyTable
    from latency_tables.advice import advice_on_table

    if csv is not None:
        check_output(csv, overwrite=overwrite, ending=".csv", must_end=True)
    loaded = LatencyTable.load(table)
    if csv is not None:
        loaded.save(csv)
    report = summary_of(loaded, table)
    emit(report, json=json, render=lambda: _render(report), warnings=warn(advice_on_table(loaded.info)))


def _space(name: str, classes: int | None) -> Space:
    from ofa.training.spaces import find_space

    return find_space(name, classes)


def _figures(found: TableCheck) -> dict[str, Any]:
    errors = ("mean_error", "noise_floor", "bias", "within_5_percent", "within_10_percent", "inside_interval")
    keys = ("nets", *errors, "spearman", "kendall", "slowdown")
    return {key: _or_none(getattr(found, key)) for key in keys}


def _networks(found: TableCheck) -> list[dict[str, Any]]:
    import json as json_format

    rows = found.networks.to_dict(orient="records")
    return [{str(key): json_format.loads(value) if key == "arch" else _or_none(value) for key, value in row.items()} for row in rows]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _render(report: dict[str, Any]) -> RenderableType:
    device = report["device"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["kinds"].items())
    lines = {
        "table": Name(report["table"]),
        "device": _device(device, report["runtime_version"]),
        "latencies are of": format_conditions(report["conditions"]),
        "processor": report["processor"],
        "date": report["date"],
        "blocks": f"{report['blocks']} ({kinds})",
        **{f"resolutions of {space}": ", ".join(map(str, sizes)) for space, sizes in report["spaces"].items()},
        **({"estimated from": f"{report['estimated']['nets']} networks"} if "estimated" in report else {}),
        "calibration": _calibration(report["calibration"]),
    }
    if "measured" in report:
        lines["measured now"] = str(report["measured"])
    return facts(lines.items())


def _device(device: dict[str, Any], version: str) -> str:
    if device["threads"] is None:
        return f"{device['name']}: measured by others, {device['precision']}"
    return f"{device['name']}: {device['runtime']} {version}, threads: {device['threads']}, {device['precision']}"


def _calibration(fields: dict[str, Any] | None) -> str:
    if fields is None:
        return "none yet; see: ofa table calibrate --help"
    weights = f" {_signed_ms(fields['ms_per_weight_mib'])} x MiB of weights" if fields["ms_per_weight_mib"] else ""
    if fields.get("ms_per_weight_mib2"):
        weights += f" {_signed_ms(fields['ms_per_weight_mib2'])} x its square"
    return (
        f"{fields['slope']:.3f} x sum{weights} {_signed_ms(fields['intercept_ms'])}, from {fields['nets']} networks; "
        f"{format_percent(fields['coverage'])} are within {format_percent(fields['half_width'])}"
    )


def _signed_ms(milliseconds: float) -> str:
    return f"{'-' if milliseconds < 0 else '+'} {format_ms(abs(milliseconds))}"


def _render_check(report: dict[str, Any]) -> RenderableType:
    shares = ("mean_error", "noise_floor", "bias", "within_5_percent", "within_10_percent", "inside_interval")
    rows = [("networks were timed as", format_conditions(report["conditions"]))]
    rows += [(key.replace("_", " "), "-" if report[key] is None else format_percent(report[key])) for key in shares]
    for key in ("spearman", "kendall"):
        rows.append((f"{key} rank correlation", "-" if report[key] is None else f"{report[key]:.3f}"))
    rows.append(("machine slower than in the table by", format_percent(report["slowdown"] - 1)))
    title = f"{report['table']} against {report['nets']} random networks on {report['device']}"
    return facts(rows, title=title, caption=format_conditions(report["conditions"]))
