"""Every command that writes leaves alone what another process is writing, and says who that is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ofa
from latency_tables import LatencyTable
from ofa.errors import FileError
from ofa.exporting.bundle import load_bundle
from ofa.locking import lock_of
from ofa.training import begin_run, demo_recipe, load_run, save_run
from search.front.front import Front
from tests.cli.files import COMMANDS, ENDINGS, SPACE, Command, call
from tests.commands import command_line
from tests.faults.test_locks import ROOT

HOLD = """
import sys
from ofa.locking import writing
for path in sys.stdin:
    with writing(path.rstrip("\\n"), "training a network"):
        print("there", flush=True)
        sys.stdin.readline()
    print("gone", flush=True)
"""
ANSWERS = {"space", "data", "table check", "table show", "query", "report"}
"""Commands whose outputs are written in one go when all is done, and never changed."""
WRITERS = [command for command in COMMANDS if command.outputs and command.words not in ANSWERS]
CHANGERS = [
    (Command("table build", "--space ofa-mbv3-tiny --device fake --resolutions 16 --resume -o {table}"), "table"),
    (Command("table calibrate", "{table} --space ofa-mbv3-tiny --device fake --nets 9 --overwrite"), "table"),
    (Command("query", "{front} --verify --device fake --update --table {table} --latency 9ms"), "table"),
    (Command("query", "{front} --verify --device fake --update --latency 9ms"), "front"),
    (Command("export", "{bundle} --to onnx --overwrite"), "bundle"),
    (Command("verify", "{bundle} --device fake"), "bundle"),
    (Command("specialize", "{run} --arch {arch} --epochs 0 --overwrite -o {bundle}"), "bundle"),
    (Command("train", "--resume {run} --epochs 1"), "run"),
    (Command("train", "{recipe} -o {run} --overwrite"), "run"),
    (Command("predictor fit", "{results} -o {predictor} --overwrite"), "predictor"),
]


@pytest.fixture(scope="module")
def hold() -> Iterator[Callable[[Path | None], None]]:
    """Lets another process hold a path, or none."""
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdin is not None
    assert other.stdout is not None

    def now(path: Path | None) -> None:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(f"{path or ''}\n")
        other.stdin.flush()
        assert other.stdout.readline() == ("gone\n" if path is None else "there\n")

    yield now
    other.communicate()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(arguments: list[str], held: Path, folder: Path, hold: Callable[[Path | None], None]) -> None:
    before = content(folder)
    hold(held)
    try:
        result = command_line(*arguments)
    finally:
        hold(None)
    told = " ".join(result.stderr.split())
    assert result.exit_code == 1, told
    assert "must have one writer at a time, but process " in told
    assert " has been training a network since 20" in told
    assert "Traceback" not in told
    assert content(folder) == before
    assert not lock_of(held).exists()


@pytest.mark.parametrize("command", WRITERS, ids=lambda command: command.words)
def test_a_new_output_that_is_being_written_is_left_alone(
    command: Command, places: dict[str, Path], tmp_path: Path, hold: Callable[[Path | None], None]
) -> None:
    output = tmp_path / f"o{ENDINGS.get(command.words, '')}"
    refused(call(command, places, "-o", output), output, tmp_path, hold)


@pytest.mark.parametrize(("command", "changed"), CHANGERS, ids=lambda value: value if isinstance(value, str) else value.words)
def test_a_file_that_is_being_written_is_not_changed(
    command: Command, changed: str, places: dict[str, Path], tmp_path: Path, hold: Callable[[Path | None], None]
) -> None:
    copies = {}
    for name in {"table", "front", "bundle", "run", "predictor"} & {part.strip("{}") for part in command.arguments.split()}:
        copies[name] = tmp_path / places[name].name
        (shutil.copytree if places[name].is_dir() else shutil.copy)(places[name], copies[name])
    refused(call(command, {**places, **copies}), copies[changed], tmp_path, hold)


PYTHON: dict[str, tuple[str, Callable[[dict[str, Path]], object]]] = {
    "train": ("run", lambda places: ofa.train(demo_recipe(), places["run"], overwrite=True)),
    "specialize": ("bundle", lambda places: ofa.specialize(load_run(places["run"]), SPACE.smallest(), places["bundle"], overwrite=True)),
    "export": ("bundle", lambda places: ofa.export(load_bundle(places["bundle"]), "onnx", overwrite=True)),
    "verify": ("bundle", lambda places: ofa.verify(load_bundle(places["bundle"]), "fake")),
    "begin_run": ("run", lambda places: begin_run(places["run"], demo_recipe())),
    "save_run": ("run", lambda places: save_run(places["run"], load_run(places["run"]).supernet, demo_recipe(), ())),
    "table.save": ("table", lambda places: LatencyTable.load(places["table"]).save(places["table"])),
    "front.save": ("front", lambda places: Front.load(places["front"]).save(places["front"])),
}


@pytest.mark.parametrize("what", PYTHON)
def test_python_is_refused_as_commands_are(
    what: str, places: dict[str, Path], tmp_path: Path, hold: Callable[[Path | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa.parquet._TURN_S", 0.0)
    changed, call_it = PYTHON[what]
    copies = {name: tmp_path / name for name in {changed, "run"}}
    for name, copy in copies.items():
        (shutil.copytree if places[name].is_dir() else shutil.copy)(places[name], copy)
    before = content(tmp_path)
    hold(copies[changed])
    try:
        with pytest.raises(FileError, match=r"must have one writer at a time, but process \d+ has been training a network since"):
            call_it(copies)
    finally:
        hold(None)
    assert content(tmp_path) == before
