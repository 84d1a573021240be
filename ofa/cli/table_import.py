"""``ofa table import``: brings latency tables that others published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_conditions
from ofa.cli.outputs import check_folder

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["import_group", "mit_yaml"]

_EXAMPLE = "Example: ofa table import mit-yaml 224_lookup_table.yaml --space ofa-mbv3-w1.2 --device note10 -o note10.parquet"


def import_group() -> typer.Typer:
    """The commands, for ``ofa table`` to add."""
    group = typer.Typer(help="Latency tables that others measured and published.", no_args_is_help=True)
    group.command("mit-yaml", epilog=_EXAMPLE)(mit_yaml)
    return group


def mit_yaml(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Lookup tables as MIT publishes them, one for each image size.")],
    space: Annotated[
        str,
        typer.Option("--space", metavar="SPACE", help="The space that they were measured for: a name, a space file, or module:attribute."),
    ],
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="Any name for what they were measured on.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE", help="Where to write the table.")],
    precision: Annotated[str, typer.Option(help="Number format that their publisher says; the files do not.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Images in one call, likewise.")] = 1,
    classes: Annotated[int | None, typer.Option("--classes", min=2, help="Classes of their classifier, if not the space's own.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring the lookup tables of MIT's Once-for-All or ProxylessNAS."""
    from latency_tables.importing import import_mit_tables
    from ofa.errors import FileError
    from ofa.families import get_space

    check_folder(output)
    if output.exists() and not overwrite:
        raise FileError(f"a table must not replace what is there, but '{output}' exists; name another file or add --overwrite")
    table = import_mit_tables(files, get_space(space, classes), device=device, precision=precision, batch=batch)
    table.save(output)
    rest = {key: value for key, value in table.metadata.items() if key != "networks"}
    report = {**rest, "table": str(output), "blocks": len(table), "kinds": table.rows["kind"].value_counts().to_dict()}
    emit(report, json=json, render=lambda: _render(report))


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    device = report["device"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["kinds"].items())
    lines = {
        "table": report["table"],
        "device": f"{device['name']}, measured by others: {device['precision']}, batch {device['batch']}",
        "latencies are of": format_conditions(report["conditions"]),
        "blocks": f"{report['blocks']} ({kinds})",
        **{f"resolutions of {space}": ", ".join(map(str, sizes)) for space, sizes in report["spaces"].items()},
        **{source["name"]: f"sha256 {source['sha256']}" for source in report["sources"]},
    }
    table = Table(show_header=False)
    for key, value in lines.items():
        table.add_row(key, Text(value))
    return table
