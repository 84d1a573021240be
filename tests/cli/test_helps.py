"""The helps: commands along the road, whole words in 80 columns, examples that can be copied, and the page of all of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ofa.cli.helps import ROAD
from ofa.cli.main import build_app
from tests.commands import command_line

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
ROOF: Any = typer.main.get_command(build_app())


def below(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from below(child, (*words, name))


ALL = list(below(ROOF))


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == command_line("--markdown").stdout, "write it anew with: make pages"


def test_commands_stand_in_groups_along_the_road() -> None:
    shown = command_line("--help", width=80).stdout
    marks = [mark for step, names in ROAD.items() for mark in (f"─ {step} ", *(f"│ {name} " for name in names))]
    places = [shown.index(mark) for mark in marks]
    assert places == sorted(places)
    assert {name for names in ROAD.values() for name in names} == set(ROOF.commands)
    assert "markdown" not in shown


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) or "ofa" for words, _ in ALL])
def test_help_is_whole_in_80_columns(words: tuple[str, ...], command: Any) -> None:
    """Also a group's; an example that is longer is on one line all the same."""
    lines = command_line(*words, "--help", width=80).stdout.rstrip().splitlines()
    examples = [f" {example}" for example in command.examples.split("\n")]
    assert examples[0].startswith(f" Example: ofa {' '.join(words)}")
    assert lines[-len(examples) :] == examples
    assert all(len(line) <= 80 for line in lines[: -len(examples)])
    shown = {word for line in lines for word in line.strip("│╭╮╰╯").replace(",--", " --").split()}
    for parameter in command.params:
        if not parameter.hidden:
            named = {*parameter.opts, parameter.metavar or ""} if parameter.param_type_name == "option" else {parameter.metavar}
            assert {*parameter.help.split(), *named} - {""} <= shown, parameter.name
    assert "\n" not in command.help.replace("\n\n", "")


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) or "ofa" for words, _ in ALL])
def test_examples_are_right_usage(words: tuple[str, ...], command: Any) -> None:
    for line in command.examples.split("\n"):
        name, *typed = shlex.split(line.partition(": ")[2].partition(" > ")[0])
        assert name == "ofa"
        called = ROOF
        while hasattr(called, "commands"):
            called = called.commands[typed.pop(0)]
        called.make_context("ofa", typed)  # which raises for an unknown option and for a missing one
