"""What pages name and no test runs: commands of the command line are parsed, scripts have the options, targets of make are there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from tests.commands import commands_by_name
from tests.documented.fences import EXTENDING, PAGES, commands, page_of, read_fences, spans
from tests.documented.prepared import BEGINS_WITH
from tests.documented.small import KINDS, NOT_RUN, SMALLER_OPTIONS, SMALLER_TEXTS, STAND_INS, STATUS, words_of
from tests.sources import ROOT

_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*|-[a-z](?= |$))")


@cache
def documented() -> dict[str, str]:
    """Every command in a block, and where it stands."""
    found = {}
    for page in PAGES:
        for fence in read_fences(page, page_of(page)):
            if fence.language == "sh":
                found.update(dict.fromkeys(commands(fence), fence.place))
    return found


@cache
def all_text() -> str:
    return "\n".join(page_of(page) for page in PAGES)


def named(start: str) -> Iterator[tuple[str, str]]:
    """Commands in blocks and in prose that begin with a word, and where they stand."""
    yield from ((command, place) for command, place in documented().items() if command.startswith(start))
    for page in PAGES:
        yield from ((span, page) for span in spans(page_of(page)) if span.startswith(start))


def test_the_tables_say_nothing_of_what_is_gone() -> None:
    known = documented()
    assert [command for command in (*NOT_RUN, *STATUS) if command not in known] == []
    assert [kind for kind in KINDS if not any(named(kind))] == []
    blocks = {(fence.page, fence.text.partition("\n")[0]) for page in PAGES for fence in read_fences(page, page_of(page))}
    assert [stand_in for stand_in in STAND_INS if stand_in not in blocks] == []
    assert [text for text in SMALLER_TEXTS if text not in all_text()] == []
    assert [page for page in BEGINS_WITH if page not in PAGES] == []
    assert [words for words in SMALLER_OPTIONS if not any(f"{command} ".startswith(f"ofa {words} ") for command in known)] == []


@pytest.mark.parametrize("command", [command for command in NOT_RUN if "ofa " in command])
def test_what_does_not_run_is_parsed(command: str) -> None:
    _parse(command[command.index("ofa ") :])


def _parse(command: str) -> None:
    words, arguments = words_of(shlex.split(command)[1:])
    try:
        commands_by_name()[words].make_context(f"ofa {words}", arguments)
    except typer.TyperException as error:
        pytest.fail(f"'{command}': {error.format_message()}")


def test_options_that_pages_name_are_there() -> None:
    wrong = []
    for text, place in named("ofa "):
        if place.startswith(EXTENDING):
            continue  # its options are there where its package is installed: tests/extending runs them
        words, _ = words_of(text.split()[1:])
        if not words:
            continue
        options = {option for parameter in commands_by_name()[words].params for option in parameter.opts}
        wrong += [f"{place}: '{text}' has no {option}" for option in _OPTION.findall(text) if option not in options | {"--help"}]
    assert wrong == []


def test_scripts_that_pages_name_have_these_options() -> None:
    wrong = []
    for text, place in (*named("python benchmarks/"), *named("PEER/bin/python benchmarks/"), *named("benchmarks/")):
        script = next((word for word in text.split() if word.startswith("benchmarks/") and word.endswith(".py")), "")
        if not script:
            continue
        if not (ROOT / script).is_file():
            wrong.append(f"{place}: there is no {script}")
            continue
        wrong += [f"{place}: {script} has no {option}" for option in _OPTION.findall(text) if option not in _options(ROOT / script)]
    assert wrong == []


@cache
def _options(script: Path) -> frozenset[str]:
    """Options of a script and of the modules beside it that it imports."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {node.module.rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    beside = [path for name in names if (path := script.with_name(f"{name}.py")).is_file() and path != script]
    return frozenset({each for each in said if each.startswith("-")}.union(*map(_options, beside)))


def test_targets_that_pages_name_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = ((place, word) for text, place in named("make ") for word in shlex.split(text)[1:] if re.fullmatch(r"[a-z-]+", word))
    assert [(place, word) for place, word in asked if word not in targets] == []


def test_paths_that_pages_name_are_there() -> None:
    kept = re.compile(r"^(?:benchmarks|docs|tests|ofa|search|devices|latency_tables)/[\w./-]+\.[a-z]+$")
    paths = {(page, span) for page in PAGES for span in spans(page_of(page)) if kept.match(span)}
    assert sorted((page, span) for page, span in paths if not (ROOT / span).exists()) == []
