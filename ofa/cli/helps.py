"""The help of every command: their order along the road, paragraphs that flow with the terminal, words for values."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

__all__ = ["ROAD", "HelpfulCommand", "HelpfulGroup", "along_the_road", "put_on_road"]

ROAD = {
    "Prepare": ("data", "space", "recipes", "adopt", "import"),
    "Train": ("train",),
    "Measure": ("devices", "table", "predictor"),
    "Search": ("search", "query", "report"),
    "Ship": ("specialize", "export", "verify"),
    "Try it": ("demo",),
}
"""The commands by the steps that they belong to, in the order in which somebody meets them."""

_WORDS = {int: "N", float: "NUMBER", str: "NAME", Path: "FILE"}
"""What stands for a value whose option names none."""


class _Helpful:
    """What the helps of commands and of groups have in common."""

    help: str | None
    epilog: str | None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.help = _flowing(self.help)
        self.examples, self.epilog = str(self.epilog), None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help, with the examples as they are typed: a command that is longer than a line can be copied all the same."""
        super().format_help(ctx, formatter)  # type: ignore[misc]
        typer.echo("\n" + indent(self.examples, " "))

    def get_params(self, ctx: Any) -> Any:
        """Arguments and options, with a word for the value of each option."""
        found = super().get_params(ctx)  # type: ignore[misc]
        for option in found:
            if isinstance(option, TyperOption) and option.metavar is None:
                option.metavar = _word(option)
        return found


class HelpfulCommand(_Helpful, TyperCommand):
    """A command of ``ofa``."""


class HelpfulGroup(_Helpful, TyperGroup):
    """A group of commands of ``ofa``."""


def put_on_road(app: typer.Typer) -> None:
    """Give each command and group of the roof the step of ``ROAD`` that it belongs to, and all of them their helps."""
    steps = {name: step for step, names in ROAD.items() for name in names}
    registered: list[Any] = [*app.registered_commands, *app.registered_groups]
    for info in registered:
        info.rich_help_panel = steps[info.name]
    _help(app)


def along_the_road(names: list[str]) -> list[str]:
    """The names of commands in the order of ``ROAD``."""
    order = [name for names in ROAD.values() for name in names]
    return sorted(names, key=order.index)


def _help(app: typer.Typer) -> None:
    for command in app.registered_commands:
        command.cls = HelpfulCommand
    for group in app.registered_groups:
        group.cls = HelpfulGroup
        assert group.typer_instance is not None
        _help(group.typer_instance)


def _flowing(text: str | None) -> str | None:
    """Paragraphs whose lines break where the terminal ends, and not where the source's do."""
    return None if text is None else "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _word(option: TyperOption) -> str | None:
    """What stands for the value of an option: nothing for a flag; None leaves it to typer."""
    if option.is_flag:
        return ""
    return _WORDS.get(option.type_descriptor.annotation)
