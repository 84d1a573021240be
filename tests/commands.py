"""The command line, called in this process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest.mock import patch

import typer
from typer import testing

from ofa.cli.main import build_app


@cache
def _commands() -> Any:
    return typer.main.get_command(build_app())


@cache
def commands_by_name() -> dict[str, Any]:
    """Every command by its words, such as ``table build``."""

    def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from below((*words, name), child)
        else:
            yield " ".join(words), command

    return dict(below((), _commands()))


def command_line(*arguments: object, width: int | None = None) -> Any:
    """Run the command line, in a terminal of some width if one is given."""
    env = None if width is None else {"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    # Of itself the runner builds all commands anew each time, which takes longer than most of them do.
    with patch.object(testing, "_get_command", lambda commands: commands):
        return testing.CliRunner().invoke(_commands(), [str(argument) for argument in arguments], env=env)
