"""``ofa recipes``: the built-in recipes, and the reference of all keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["recipes", "register"]

_EXAMPLE = "Example: ofa recipes phases.sandwich\nTo begin one: ofa recipes small-budget > mine.toml"


def register(app: typer.Typer) -> None:
    """Add ``ofa recipes``."""
    app.command("recipes", epilog=_EXAMPLE)(recipes)


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|KEY", help="A built-in recipe, a table such as augmentation, or a key.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole reference as Markdown.")] = False,
    json: JsonOption = False,
) -> None:
    """List the built-in recipes, print one, or explain a key."""
    from ofa.training.presets import preset_about, preset_names, preset_text
    from ofa.training.reference import recipe_reference, reference_markdown

    known = {preset: preset_about(preset) for preset in preset_names()}
    if markdown:
        typer.echo(reference_markdown(known), nl=False)
        return
    if name in known:
        text = preset_text(name)
        if json:
            emit({"recipe": name, "toml": text}, json=True, render=lambda: text)
        else:
            typer.echo(text, nl=False)
        return
    keys = [
        {"key": doc.path, "table": doc.table, "type": doc.type, "default": doc.default, "meaning": doc.meaning}
        for doc in recipe_reference(name)
    ]
    report: dict[str, Any] = {"recipes": known if name is None else {}, "keys": keys}
    emit(report, json=json, render=lambda: _render(report))


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    if report["recipes"]:
        overview = _table("recipe", "what it is for", [(name, text) for name, text in report["recipes"].items()])
        overview.caption = "print one with: ofa recipes NAME; train with it: ofa train NAME -o RUN"
        return Group(overview, _table("key", "type, default", [(key["key"], _kind(key)) for key in report["keys"]]))
    return _table("key", "meaning", [(key["key"], f"{_kind(key)}: {key['meaning']}") for key in report["keys"]])


def _kind(key: dict[str, Any]) -> str:
    return f"{key['type']}, {'required' if key['default'] == 'required' else 'by default ' + key['default']}"


def _table(first: str, second: str, rows: list[tuple[str, str]]) -> Table:
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column(first, no_wrap=True), second)
    for name, text in rows:
        table.add_row(name, Text(text.replace("``", "")))
    return table
