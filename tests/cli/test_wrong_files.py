"""Every file that any command reads, replaced by something else: a sentence, and never more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.files import COMMANDS, Command, call, outputs_to
from tests.commands import command_line

INPUTS = [(command, name) for command in COMMANDS for name in command.inputs]
IDS = [f"{command.words}-{name}" for command, name in INPUTS]


KINDS = ("table", "front", "predictor", "weights", "results", "arch", "run", "bundle")
"""Of ours, each of which might be named instead of another."""


def write_wrong(folder: Path, right: Path) -> dict[str, Path]:
    """What might be named by mistake instead of a file, by what it is; its name ends as that of the right one."""
    content = {"empty": b"", "garbage": bytes(range(256)) * 8, "text": b"a line\nof words = and [signs]\n", "json": b'[{"space": 1}, null]'}
    content["picture"] = b"\x89PNG\r\n\x1a\n" + bytes(100)
    if right.is_file():
        content["half"] = right.read_bytes()[: right.stat().st_size // 2]
    folder.mkdir()
    made = {kind: folder / f"{kind}{right.suffix}" for kind in (*content, "folder", "absent")}
    for kind, data in content.items():
        made[kind].write_bytes(data)
    made["folder"].mkdir()
    return made


@pytest.mark.parametrize(("command", "name"), INPUTS, ids=IDS)
def test_a_wrong_file_is_one_sentence(
    command: Command, name: str, places: dict[str, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    right = command.inputs[name]
    words = command.arguments.split()
    assert words.count(right) == 1
    wrong = write_wrong(tmp_path_factory.mktemp("given") / "wrong", Path(right.format(**places)))
    for kind, path in {**wrong, **{kind: places[kind] for kind in KINDS}}.items():
        if f"{{{kind}}}" == right or kind in FITTING.get((command.words, name), ()):
            continue
        given = [str(path) if word == right else word.format(**places) for word in words]
        result = command_line(*command.words.split(), *given, *outputs_to(command, tmp_path))
        what = f"{kind} as {name} of ofa {command.words}"
        assert result.exit_code in (1, 2), f"{what} is taken: {result.output}"
        assert result.stdout == "", what
        told = [line for line in result.stderr.splitlines() if line.startswith("ofa: ") and not line.startswith("ofa: warning: ")]
        if result.exit_code == 1:
            assert len(told) == 1, f"{what} says {result.stderr}"
            assert "; " in told[0] or ": " in told[0].removeprefix("ofa: "), f"{what} names no next step: {told[0]}"
        # What columns a file of others has may be told.
        for strange in ("should not have happened", "Traceback", *["@"] * (command.words != "data")):
            assert strange not in result.stderr, f"{what} says {result.stderr}"
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], what


FITTING = {
    ("data", "source"): ("run",),
    ("devices list", "folders"): ("folder", "run", "bundle"),
    ("report", "source"): ("table", "run"),
    ("predictor fit", "source"): ("run", "results"),
}
"""Other kinds that a command takes, too."""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whoever may read everything is refused nothing")
def test_a_file_that_may_not_be_read_is_one_sentence(places: dict[str, Path], tmp_path: Path) -> None:
    locked = tmp_path / "front"
    locked.write_bytes(places["front"].read_bytes())
    locked.chmod(0)
    result = command_line("query", locked)
    assert result.exit_code == 1
    assert "permission denied" in result.stderr


def test_commands_do_what_they_are_asked_with_the_right_files(places: dict[str, Path], tmp_path: Path) -> None:
    """The other tests here say nothing if a command fails for another reason; of commands that write, tests/cli/test_outputs.py says it."""
    shutil.copytree(places["bundle"], tmp_path / "bundle")
    for command in COMMANDS:
        if not command.outputs:
            result = command_line(*call(command, {**places, "bundle": tmp_path / "bundle"}))
            assert result.exit_code == 0, f"{command.words}: {result.output}"
