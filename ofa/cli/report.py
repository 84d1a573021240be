"""``ofa report``: writes a page about a front, a latency table or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_bytes, format_conditions, warn
from ofa.cli.outputs import OverwriteOption, check_output, check_output_folder
from ofa.cli.sheets import Name, facts
from ofa.cli.spaces import OwnSpaceOption, named

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices import Conditions
    from latency_tables import LatencyTable
    from search.front.front import Front
    from search.report.training import RunRecord

__all__ = ["register", "report"]

_EXAMPLE = "Example: ofa report run.front -o report.html --png pictures"


def register(app: typer.Typer) -> None:
    """Add ``ofa report``."""
    app.command("report", epilog=_EXAMPLE)(report)


def report(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A front of `ofa search`, a latency table, or the folder of a run of `ofa train`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="HTML", help="Where to write the page.")],
    png: Annotated[Path | None, typer.Option("--png", metavar="FOLDER", help="Also write its charts as PNG files.")] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Title of the page; by default from SOURCE.")] = None,
    space: OwnSpaceOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write a self-contained HTML page, which needs no internet connection."""
    check_output(output, overwrite=overwrite, ending=".html")
    if png is not None:
        check_output_folder(png, overwrite=overwrite)
    from ofa.training import left_out
    from search.report import read_source, save_report
    from search.report.training import RunRecord

    named(space)  # imports the user's own class, without which its space cannot be drawn
    loaded = read_source(source)
    save_report(loaded, output, title=title)
    pictures: tuple[Path, ...] = ()
    if png is not None:
        from search.report.pictures import save_pictures

        pictures = save_pictures(loaded, png)
    answer = {"report": str(output), "bytes": output.stat().st_size, "pictures": [str(path) for path in pictures]}
    answer["conditions"] = {name: each.to_json() for name, each in _conditions(loaded).items()}
    warnings = warn([left_out(source, loaded.damaged)] if isinstance(loaded, RunRecord) and loaded.damaged else [])
    emit(answer, json=json, render=lambda: _render(answer), warnings=warnings)


def _conditions(loaded: Front | LatencyTable | RunRecord) -> dict[str, Conditions]:
    """Measurement conditions of a page's latencies, by device."""
    from latency_tables import LatencyTable
    from search.front.front import Front

    if isinstance(loaded, LatencyTable):
        return {loaded.device_name: loaded.conditions}
    return loaded.conditions if isinstance(loaded, Front) else {}


def _render(answer: dict[str, Any]) -> RenderableType:
    rows = [(f"latency on {device}", format_conditions(conditions)) for device, conditions in answer["conditions"].items()]
    rows += [("page", Name(answer["report"])), ("size", f"{format_bytes(answer['bytes'])}; open it in any browser")]
    return facts([*rows, *(("picture", Name(path)) for path in answer["pictures"])])
