"""A run that goes on: by its folder alone, for longer, and after a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from ofa.cli import specialize, train
from ofa.errors import FileError, RecipeError
from ofa.training import Recipe, TrainingState, append_metrics, begin_run, first_data, has_ended, load_run, save_state
from ofa.training import train as train_supernet
from tests.recipes import digits_recipe

RECIPE = digits_recipe(2, "fractions = [0.1, 0.1, 0.8]", "evaluate_every = 0")


def invoke(*arguments: object) -> Any:
    app = typer.Typer()
    train.register(app)
    specialize.register(app)  # with one command alone, its name would be left out
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ofa(*arguments: object) -> Any:
    result = invoke(*arguments, "--device", "cpu")
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "few.toml"
    path.write_text(RECIPE)
    return path


def test_a_run_with_damage_goes_on_and_says_what_is_lost(config: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", Recipe.load(config)
    begin_run(run, recipe)
    states: list[TrainingState] = []
    metrics = train_supernet(
        recipe.build_supernet(10),
        recipe,
        first_data(recipe).splits.train,
        on_state=states.append,
        on_metrics=lambda epoch: append_metrics(run, epoch),
    )
    for state in states[-2:]:
        save_state(run, recipe, state)
    first, last = sorted((run / "checkpoints").iterdir())
    last.write_bytes(last.read_bytes()[:-9])
    lines = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(lines.replace(b"full", b"fall", 1)[:-20])
    result = ofa("train", "--resume", run, "--json")
    told = [f"'{last}' must be a whole state", f"'{run / 'metrics.jsonl'}' must be undamaged, but a line is damaged; the"]
    assert [any(warning.startswith(words) for warning in json.loads(result.stdout)["warnings"]) for words in told] == [True, True]
    assert all(words in result.stderr for words in told)
    assert load_run(run).metrics[-1].loss == metrics[-1].loss
    assert not first.exists()


def test_a_run_goes_on_by_its_folder_alone_and_for_longer(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin_run(run, Recipe.load(config))
    ended = json.loads(ofa("train", "--resume", run, "--json").stdout)
    assert ended["epochs"] == 2
    assert has_ended(run)
    again = ofa("train", "--resume", run, "--json")
    assert json.loads(again.stdout) == ended
    assert f"'{run}' is finished, nothing is left to do; train it for longer with: ofa train --resume {run} --epochs N" in again.stderr
    with pytest.raises(RecipeError, match="in seed 0 -> 4; resume it without the change"):
        ofa("train", "--resume", run, "--set", "seed=4")
    report = json.loads(ofa("train", "--resume", run, "--epochs", 1, "--json").stdout)
    assert report["epochs"] == 3
    longer = load_run(run)
    assert [(phase.name, phase.epochs, phase.learning_rate) for phase in longer.recipe.phases] == [
        ("full", 2, 0.1),
        ("full-more-1", 1, 0.01),
    ]
    assert [epoch.phase for epoch in longer.metrics] == ["full", "full", "full-more-1"]
    ofa("train", run / "config.toml", "-o", tmp_path / "whole")
    others = load_run(tmp_path / "whole").supernet.named_tensors()
    assert all(torch.equal(tensor, others[name]) for name, tensor in longer.supernet.named_tensors().items())


def test_another_recipe_is_refused_by_its_keys(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin_run(run, Recipe.load(config))
    with pytest.raises(FileError, match="add --resume to go on"):
        ofa("train", config, "-o", run)
    with pytest.raises(RecipeError, match="in batch_size 32 -> 64, seed 0 -> 4; resume it without the change by 'ofa train --resume"):
        ofa("train", config, "-o", run, "--resume", "--set", "seed=4", "--set", "batch_size=64")
    with pytest.raises(RecipeError, match=r"in phases\.full\.epochs 2 -> 3;"):
        ofa("train", "--resume", run, "--set", "phases.full.epochs=3")
    with pytest.raises(FileError, match="epochs can be added only to a run that has ended"):
        ofa("train", "--resume", run, "--epochs", 3)
    ofa("train", "--resume", run, "--set", "workers=0", "--set", "checkpoint_steps=1")
    assert load_run(run).recipe.workers == 0


def test_a_folder_that_is_no_run_is_told(config: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"--resume must name the folder of a run, but '.*absent' has no config\.toml"):
        ofa("train", "--resume", tmp_path / "absent")
    with pytest.raises(FileError, match="is a folder; if it is a run, add --resume"):
        ofa("train", tmp_path, "-o", tmp_path / "run")
    with pytest.raises(FileError, match="--epochs must go with a run that has ended"):
        ofa("train", config, "-o", tmp_path / "absent", "--resume", "--epochs", 2)


@pytest.mark.parametrize(
    "words",
    [("train",), ("train", "x.toml", "-o", "run", "--epochs", 3), ("train", "--resume", "run", "--overwrite"), ("train", "--resume")],
)
def test_wrong_usage_is_told_before_anything_is_read(words: tuple[object, ...]) -> None:
    assert invoke(*words).exit_code == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_loses_nothing_and_the_run_goes_on(number: signal.Signals, status: int, config: Path, tmp_path: Path) -> None:
    """A real process, really interrupted in the middle of an epoch."""
    run, environment = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    changes = ["--set", "phases.full.epochs=400", "--set", "evaluate_every=100", "--device", "cpu"]
    command = [sys.executable, "-m", "ofa", "train", str(config), "-o", str(run), *changes]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status
    step = max(int(path.stem) for path in (run / "checkpoints").iterdir())
    assert told.splitlines()[-1] == f"ofa: interrupted at step {step}, where its state is kept; go on with: ofa train --resume {run}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["step"] <= step <= lines[-1]["step"] + 6  # at most one more epoch, of five steps
