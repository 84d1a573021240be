"""The command ``ofa``: its groups, one file each, and how it starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import ofa
from ofa.cli.console import door_for_notices
from ofa.cli.exits import ending_well
from ofa.cli.helps import HelpfulGroup, along_the_road, put_on_road
from ofa.cli.secrets import leave_process_list
from ofa.cli.shadow import check_siblings
from ofa.cli.stopping import stoppable
from ofa.files import remove_dead_folders
from ofa.registry import import_also_from

__all__ = ["build_app", "run"]


class _Roof(HelpfulGroup):
    """Ends every command in the same way, and names them along the road."""

    def list_commands(self, ctx: Any) -> list[str]:
        return along_the_road(super().list_commands(ctx))

    def make_context(self, *args: Any, **named: Any) -> Any:
        with ending_well():
            return super().make_context(*args, **named)

    def invoke(self, ctx: Any) -> Any:
        # Here, because the command line's parser would otherwise swallow an interruption silently.
        with ending_well():
            return super().invoke(ctx)


def build_app() -> typer.Typer:
    """The command line with all of its groups."""
    # Imported here: sibling packages may be imported only after the check for shadowing.
    from ofa.cli import (
        adopt,
        data,
        demo,
        devices,
        export,
        importing,
        predictor,
        query,
        recipes,
        report,
        search,
        space,
        specialize,
        table,
        train,
        verify,
    )

    app = typer.Typer(
        cls=_Roof,
        name="ofa",
        help="Train one elastic supernet, measure any device once, and get the best network for any latency budget.",
        epilog="Example: ofa demo",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    road = (data, space, recipes, adopt, train, devices, table, predictor, search, query, specialize, export, verify, report)
    for group in (*road, importing, demo):
        group.register(app)
    put_on_road(app)
    return app


def _show_reference(context: typer.Context, wanted: bool) -> None:
    if wanted:
        from ofa.cli.reference import commands_markdown

        typer.echo(commands_markdown(context), nl=False)
        raise typer.Exit


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ofa {ofa.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", callback=_show_reference, is_eager=True, hidden=True)] = False,
) -> None:
    """Options of ``ofa`` itself, which their callbacks handle."""


def run() -> None:
    """Run ``ofa`` with the arguments of this process, and exit."""
    # Worker and agent processes run Python as well, which would search the working folder for modules first.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    with stoppable(), ending_well():
        leave_process_list()
        door_for_notices()
        remove_dead_folders()
        check_siblings()
        import_also_from(str(Path.cwd()))
        build_app()(prog_name="ofa")
