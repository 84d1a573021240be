"""``ofa table import``: imports published latency tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_conditions, warn
from ofa.cli.outputs import PARQUET, OverwriteOption, check_output
from ofa.cli.sheets import Name, facts
from ofa.cli.table_summary import summary_of
from ofa.locking import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["import_group", "mit_yaml"]

_EXAMPLE = "Example: ofa table import mit-yaml *.yaml --space ofa-mbv3-w1.2 --device note10 -o note10.parquet"


def import_group() -> typer.Typer:
    """The commands, for ``ofa table`` to add."""
    about = "Latency tables that others measured and published."
    group = typer.Typer(help=about, epilog=_EXAMPLE, no_args_is_help=True)
    group.command("mit-yaml", epilog=_EXAMPLE)(mit_yaml)
    return group


def mit_yaml(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Lookup tables as MIT publishes them, one for each image size.")],
    space: Annotated[
        str,
        typer.Option("--space", metavar="SPACE", help="The space that they were measured for: a name, a space file, or module:attribute."),
    ],
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="A name for the measured device.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE", help="Where to write the table.")],
    precision: Annotated[str, typer.Option(help="Number format according to the publisher; the files do not contain it.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Images per call, likewise.")] = 1,
    classes: Annotated[int | None, typer.Option("--classes", min=2, help="Classes of their classifier, if other than the space's.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Import lookup tables of MIT's Once-for-All or ProxylessNAS."""
    from latency_tables.advice import advice_on_table
    from latency_tables.importing import import_mit_tables
    from ofa.families import get_space

    with writing(output, "importing a table"):
        check_output(output, overwrite=overwrite, ending=PARQUET)
        table = import_mit_tables(files, get_space(space, classes), device=device, precision=precision, batch=batch)
        table.save(output)
    report = summary_of(table, output)
    emit(report, json=json, render=lambda: _render(report), warnings=warn(advice_on_table(table.info)))


def _render(report: dict[str, Any]) -> RenderableType:
    device = report["device"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["kinds"].items())
    lines = {
        "table": Name(report["table"]),
        "device": f"{device['name']}, measured by others: {device['precision']}, batch {device['batch']}",
        "latencies are of": format_conditions(report["conditions"]),
        "blocks": f"{report['blocks']} ({kinds})",
        **{f"resolutions of {space}": ", ".join(map(str, sizes)) for space, sizes in report["spaces"].items()},
        **{source["name"]: f"sha256 {source['sha256']}" for source in report["sources"]},
    }
    return facts(lines.items())
