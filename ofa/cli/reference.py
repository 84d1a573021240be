"""The page of all commands: what each does, its options, an example, in the order of the road."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

__all__ = ["commands_markdown"]

_INTRODUCTION = """\
# Commands

Every command in the order of the road, as `ofa COMMAND --help` tells it. Each also has `--help`, and `--json`, which prints only JSON on
stdout. What holds for all of them: [manners](command-line.md). `make pages` writes this page from the code.
"""
_OF_ALL = ("--help", "--json")
_HEAD = ("| option | value | default | meaning |", "| --- | --- | --- | --- |")
_COMMAND = re.compile(r"\bofa [^\n]+")


def commands_markdown(context: typer.Context) -> str:
    """The page of all commands.

    Args:
        context: of the roof, ``ofa`` itself.
    """
    found = [child for child in _leaves(context) if not child.command.hidden]
    steps = [(step, list(members)) for step, members in groupby(found, key=_step)]
    lines = [_INTRODUCTION, "| step | command | what it does |", "| --- | --- | --- |"]
    for step, members in steps:
        lines += [f"| {step} | [`{each.command_path}`](#{_anchor(each)}) | {_cell(_paragraphs(each)[0])} |" for each in members]
    for step, members in steps:
        lines += ["", f"## {step}"]
        for each in members:
            lines += _section(each)
    return "\n".join(lines) + "\n"


def _leaves(context: Any) -> Iterator[Any]:
    """The contexts of all commands below one, in the order in which it names them."""
    group = context.command
    for name in group.list_commands(context) if isinstance(group, TyperGroup) else ():
        child = typer.Context(group.get_command(context, name), info_name=name, parent=context)
        yield from _leaves(child) if isinstance(child.command, TyperGroup) else (child,)


def _step(context: Any) -> str:
    """The step of the road that a command belongs to, by itself or by its group."""
    while context.parent.parent is not None:
        context = context.parent
    return str(context.command.rich_help_panel)


def _anchor(context: Any) -> str:
    return str(context.command_path).replace(" ", "-")


def _paragraphs(context: Any) -> list[str]:
    return str(context.command.help).split("\n\n")


def _section(context: Any) -> list[str]:
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    lines = ["", f"### {context.command_path}", "", *"\n\n".join(_paragraphs(context)).split("\n"), "", f"Usage: `{usage}`"]
    for example in context.command.examples.split("\n"):
        lines += ["", _COMMAND.sub(lambda command: f"`{command[0]}`", example)]
    rows = [_row(each, context) for each in context.command.get_params(context) if not each.hidden and not set(_OF_ALL) & set(each.opts)]
    return [*lines, "", *_HEAD, *rows]


def _row(parameter: TyperArgument | TyperOption, context: Any) -> str:
    named = isinstance(parameter, TyperOption)
    names = ", ".join(map(_code, parameter.opts)) if named else _code(parameter.display_name_raw)
    cells = (names, _value(parameter, context) if named else "", _default(parameter, context), _meaning(parameter))
    return f"| {' | '.join(cells)} |"


def _value(option: Any, context: Any) -> str:
    """What an option takes, and in which bounds."""
    word, least, most = option.display_type_rich(context).strip("<>"), option.min, option.max
    bounds = "" if least is None else f", at least {least:g}" if most is None else f", {least:g} to {most:g}"
    return word and f"{_code(word)}{bounds}"


def _meaning(parameter: Any) -> str:
    variable = f" Or the variable `{parameter.envvar}`." if parameter.envvar else ""
    return _cell(parameter.help) + variable


def _default(parameter: Any, context: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.get_default(context)
    shown = parameter.show_default and value not in (None, "") and not getattr(parameter, "is_flag", False)
    return f"`{value}`" if shown else ""


def _code(words: str) -> str:
    """Words as code, those of a choice each by itself: a bar would end the cell of a table."""
    return " or ".join(f"`{word}`" for word in words.split("|"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
