"""Text of others on the terminal: of names, messages, lists and warnings, in every command."""

from __future__ import annotations

import io
import json
import logging
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.table import Table

from ofa.cli import console as console_module
from ofa.cli.console import door_for_notices, emit, progress_bar, remark, warn
from ofa.cli.exits import ending_well
from ofa.cli.plain import LONGEST, sanitized, sentence
from ofa.cli.sheets import Name, facts, line, records, words
from ofa.errors import FileError
from tests.cli.files import COMMANDS, Command, call, outputs_to
from tests.commands import command_line

HOSTILE = (
    "a\x1b[31;2Jb\x1b]0;title\x07c\x9b5md\rofa: all is well\ne\u202egpj.exe\u2066f\x00g\x7fh\u2028i\ud800j[bold]k[/bold][link=http://x]l"
)
"""Colours, a title, C1 codes, a line written over, a line forged, a turned direction, NUL, DEL, half a character, markup of rich."""


def assert_harmless(shown: str) -> None:
    """Nothing but letters and the ends of lines that are not of the hostile name."""
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") and each != "\n"]
    assert not [row for row in shown.splitlines() if row.startswith("ofa: all is well")]


def test_each_character_that_is_not_printed_is_shown_as_an_escape() -> None:
    assert sanitized("plain ü × 漢 🙂") == "plain ü × 漢 🙂"
    assert sanitized("\x1b[2J\n\u202e\x9b\x7f") == r"\x1b[2J\n\u202e\x9b\x7f"
    assert_harmless(sanitized(HOSTILE))
    assert sanitized(sanitized(HOSTILE)) == sanitized(HOSTILE)
    assert sanitized("postgresql://me:hunter2@host/db") == "postgresql://me:***@host/db"


@pytest.mark.parametrize("way", ["records", "list", "facts", "words", "line", "title", "table", "text"])
def test_a_hostile_name_in_a_result_does_nothing(way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "list":
        monkeypatch.setenv("COLUMNS", "40")
    table = Table(HOSTILE.replace("\n", ""))
    table.add_row(HOSTILE.replace("\n", ""))
    shown: dict[str, Any] = {
        "records": records((HOSTILE, "b"), [(HOSTILE, HOSTILE)]),
        "list": records(("a", HOSTILE), [(Name(HOSTILE), "x" * 30)]),
        "facts": facts([(HOSTILE, Name(HOSTILE)), ("b", HOSTILE)], caption=HOSTILE),
        "words": words(HOSTILE),
        "line": line(HOSTILE),
        "title": records(("a",), [("b",)], title=HOSTILE),
        "table": table,
        "text": HOSTILE.replace("\n", ""),
    }
    emit({}, json=False, render=lambda: shown[way])
    out = capsys.readouterr().out
    assert_harmless(out)
    assert r"\x1b[31;2J" in out
    assert "[bold]k[/bold]" in "".join(out.split()) or way in ("table", "words", "list", "facts")


def test_a_hostile_name_in_json_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    emit({HOSTILE: HOSTILE, "storage": "grpc://me:hunter2@host:1"}, json=True, render=lambda: "")
    out = capsys.readouterr().out
    assert_harmless(out)
    assert json.loads(out)[HOSTILE] == HOSTILE
    assert json.loads(out)["storage"] == "grpc://me:***@host:1"


def test_a_hostile_name_in_an_error_does_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFA_TRACEBACK", "1")
    for error in (FileError(HOSTILE), OSError(2, HOSTILE, HOSTILE), ZeroDivisionError(HOSTILE)):
        with pytest.raises(SystemExit), ending_well():
            raise error
    warn([HOSTILE])
    remark(HOSTILE)
    assert_harmless(capsys.readouterr().err)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_hostile_name_in_progress_does_nothing(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    door: Console = type(console_module.console)(file=screen, force_terminal=terminal, width=200, color_system=None)
    monkeypatch.setattr(console_module, "console", door)
    with progress_bar(HOSTILE) as progress:
        progress(1, 1, HOSTILE)
    assert r"\x1b]0;title\x07" in screen.getvalue()
    assert not {"\x1b]", "\x1b[31;2J", "\x9b", "\u202e", "\x00", "\rofa", "\nofa: all"} & {
        each for each in ("\x1b]", "\x1b[31;2J", "\x9b", "\u202e", "\x00", "\rofa", "\nofa: all") if each in screen.getvalue()
    }


@pytest.fixture
def notices() -> Iterator[None]:
    factory, show = logging.getLogRecordFactory(), warnings.showwarning
    door_for_notices()
    yield
    logging.setLogRecordFactory(factory)
    warnings.showwarning = show


@pytest.mark.usefixtures("notices")
def test_what_libraries_warn_of_and_log_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(UserWarning(HOSTILE), UserWarning, "file.py", 1)
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("tests.of.notices")
    logger.addHandler(handler)
    logger.warning("of %s: %s", "postgresql://me:hunter2@host/db", HOSTILE)
    logger.removeHandler(handler)
    err = capsys.readouterr().err
    assert_harmless(err)
    assert "of postgresql://me:***@host/db: a\\x1b" in err
    assert "file.py:1: UserWarning: a\\x1b" in err


# -- messages ----------------------------------------------------------------------------------------------------------


RULE, STEP = "a gene must be one of those of its space", "name another"


@pytest.mark.parametrize(
    "middle",
    [", ".join(f"name{i}" for i in range(900)), "x" * 100_000, " ".join(["word"] * 9000), "'" + "a b " * 9000 + "'", HOSTILE * 200],
)
def test_a_message_is_short_and_keeps_its_rule_and_its_next_step(middle: str) -> None:
    told = sentence(f"{RULE}, but got {middle}; {STEP}")
    assert len(told) <= LONGEST
    assert told.startswith(f"{RULE}, but got ")
    assert told.endswith(STEP)
    assert len(told) > 100


def test_a_long_list_says_how_many_more() -> None:
    told = sentence(f"'z' is none of them; known: {', '.join(f'name{i}' for i in range(100))}")
    assert told.startswith("'z' is none of them; known: name0, name1, ")
    kept = told.count("name")
    assert told.endswith(f"name{kept - 1} and {100 - kept} more")
    assert len(told) <= LONGEST


def test_a_message_of_usual_length_is_left_as_it_is() -> None:
    told = f"'{'/folder' * 40}' must exist; known: {', '.join('abcdefghij')}"
    assert sentence(told) == told


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.words)
def test_a_hostile_word_in_the_place_of_each_file_is_shown_harmless(command: Command, places: dict[str, Path], tmp_path: Path) -> None:
    """On stderr as an error, or in usage."""
    for place in command.inputs.values():
        for word in (HOSTILE.replace("\x00", "").replace("\ud800", ""), "x" * 5000):
            named = call(command, {**places, place.strip("{}"): tmp_path / word}, *outputs_to(command, tmp_path))
            result = command_line(*named)
            assert result.exit_code in (1, 2)
            assert_harmless(result.stdout + result.stderr)
            assert max(map(len, result.stderr.splitlines())) <= LONGEST + 40


@pytest.mark.parametrize(
    "words",
    [
        [f"--{HOSTILE}"],
        [HOSTILE],
        ["space", HOSTILE],
        ["table", HOSTILE],
        ["query", "x", "--top", HOSTILE],
        ["query", "x", f"--no{HOSTILE}"],
    ],
)
def test_a_hostile_word_that_is_wrong_usage_is_shown_harmless(words: list[str]) -> None:
    result = command_line(*words)
    assert result.exit_code in (1, 2)
    assert_harmless(result.stdout + result.stderr)


def test_a_parsers_errors_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.BadParameter) as caught, ending_well():
        raise typer.BadParameter("x" * 9000 + HOSTILE)
    assert len(caught.value.format_message()) <= LONGEST
