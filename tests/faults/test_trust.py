"""A file never decides what code runs or whom we call: each case is a file that tries, and leaves a mark where it succeeds."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devices import RUNTIMES
from ofa.cli.main import build_app
from ofa.data import load_data
from ofa.errors import OfaError, TrustError
from ofa.families import get_space
from ofa.registry import FromFile, from_file
from ofa.training import DataRecord, Recipe, begin_run, first_data, save_run
from ofa.training.optimizer import OPTIMIZERS
from ofa.training.record import Source

EVIL = "evil_of_a_file"
RECIPE = """
space = "ofa-mbv3-tiny"
data = "digits"
fractions = [0.3, 0.1, 0.1]

[[phases]]
name = "full"
epochs = 1
learning_rate = 0.05
resolutions = [16]
"""


def ofa(*arguments: object) -> Any:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def said(result: Any) -> str:
    assert result.exit_code == 1, result.output
    sentence = " ".join(result.stderr.split())
    assert "Traceback" not in sentence
    return sentence


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a module on the path writes as soon as it is imported; there is none at the end."""
    (tmp_path / "path").mkdir()
    ran = tmp_path / "it ran"
    (tmp_path / "path" / f"{EVIL}.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nthing = None\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield ran
    sys.modules.pop(EVIL, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    recipe = Recipe.from_toml(RECIPE)
    begin_run(folder, recipe, first_data(recipe).record)
    save_run(folder, recipe.build_supernet(10), recipe, ())
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def say(run: Path, key: str, text: str) -> None:
    """Let a run's recipe, and what it knows of its data, say something else."""
    said = {key: text, "fractions": [0.8, 0.2, 0]} if key == "test_data" else {key: text}
    path = run / "config.toml"
    lines = [line for line in path.read_text().splitlines() if line.partition(" =")[0] not in said and not line.startswith("# ofa-seal")]
    path.write_text("\n".join([*(f"{name} = {json.dumps(value)}" for name, value in said.items()), *lines]))
    record = DataRecord.load(run)
    assert record is not None
    if key in ("data", "test_data"):
        replace(record, facts=replace(record.facts, **{key: Source(path=text, typed=text)})).save(run)


# -- module:attribute ---------------------------------------------------------------------------------------------------


TEXTS = [field.name for field in fields(Recipe) if field.type == "str"]
OF_RUNS = ("train", "resume", "predictor", "specialize", "search", "data", "report")
REFUSED = {
    **{(key, command): "nothing is imported because a file says so" for key in ("space", "data", "test_data") for command in OF_RUNS[:-1]},
    **{("optimizer", command): "nothing is imported because a file says so" for command in ("train", "resume", "specialize")},
    **{("task", command): "there is no task" for command in OF_RUNS[:-1]},
    **{(key, "report"): "" for key in ("space", "data", "test_data", "task", "optimizer")},
}


def on_run(command: str, run: Path, folder: Path, *more: object) -> Any:
    (folder / "arch.json").write_text(json.dumps(get_space("ofa-mbv3-tiny").smallest(16).to_json()))
    out = folder / "out"
    if command == "resume":  # of a run that has not ended
        (run / "supernet.safetensors").unlink()
    words = {
        "train": ("train", run / "config.toml", "-o", out, "--on", "cpu"),
        "resume": ("train", "--resume", run, "--on", "cpu"),
        "predictor": ("predictor", "fit", run, "--nets", 10, "--rounds", 0, "-o", out, "--on", "cpu"),
        "specialize": ("specialize", run, "--arch", folder / "arch.json", "-o", out, "--epochs", 1, "--on", "cpu"),
        "search": ("search", "--supernet", run, "--trials", 1, "-o", out, "--on", "cpu"),
        "data": ("data", run),
        "report": ("report", run, "-o", out),
    }
    return ofa(*words[command], *more)


@pytest.mark.parametrize(("key", "command"), REFUSED)
def test_no_command_imports_what_a_run_or_recipe_says(key: str, command: str, run: Path, mark: Path, tmp_path: Path) -> None:
    say(run, key, f"{EVIL}:thing")
    result = on_run(command, run, tmp_path)
    assert REFUSED[key, command] in (said(result) if REFUSED[key, command] else "")
    assert not mark.exists()
    assert EVIL not in sys.modules
    assert {path.name for path in tmp_path.iterdir()} <= {"path", "run", "arch.json", "out"} - ({"out"} if REFUSED[key, command] else set())


@pytest.mark.parametrize("command", OF_RUNS[:-1])
@pytest.mark.parametrize("typed", [("--trust",), ("--data", f"{EVIL}:thing")], ids=["trusted", "typed"])
def test_what_is_typed_again_or_trusted_is_imported(command: str, typed: tuple[str, ...], run: Path, mark: Path, tmp_path: Path) -> None:
    say(run, "data", f"{EVIL}:thing")
    assert "must name a dataset as module:attribute, but" in said(on_run(command, run, tmp_path, *typed))  # it is None
    assert mark.exists()


def test_every_text_of_a_recipe_is_known_to_be_a_files(tmp_path: Path) -> None:
    """A new key that names code cannot be forgotten: the door to a user's code asks the text itself."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe, typed = Recipe.load(tmp_path / "recipe.toml"), Recipe.load(tmp_path / "recipe.toml", ["data=digits"])
    texts = {key: getattr(recipe, key) for key in TEXTS if getattr(recipe, key)}
    assert {key for key, text in texts.items() if isinstance(text, FromFile)} >= {"space", "data"}
    assert not isinstance(typed.data, FromFile)
    assert not isinstance(Recipe.load(tmp_path / "recipe.toml", trust=True).data, FromFile)
    for again in (pickle.loads(pickle.dumps(recipe)), deepcopy(recipe), replace(recipe, seed=1)):
        assert isinstance(again.data, FromFile)


@pytest.mark.parametrize("door", [load_data, get_space, OPTIMIZERS.find, RUNTIMES.find], ids=["data", "space", "optimizer", "runtime"])
def test_no_door_opens_for_a_text_of_a_file(door: Callable[[str], object], mark: Path) -> None:
    with pytest.raises(TrustError, match=r"nothing is imported because a file says so.*--trust"):
        door(from_file({"key": f"{EVIL}:thing"})["key"])
    assert not mark.exists()
    with pytest.raises(OfaError):
        door(f"{EVIL}:thing")  # as it is nothing that could be used
    assert mark.exists()
