from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from ofa.cli import dry_run, specialize, train
from ofa.errors import DataError, FileError, RecipeError
from ofa.exporting.bundle import load_bundle
from ofa.families import get_space
from ofa.training import evaluate, load_run, state
from tests.recipes import digits_recipe

RECIPE = digits_recipe(9)
FEW = ("--device", "cpu", "--set", "fractions=[0.2, 0.1, 0.7]")


def ofa(*arguments: object) -> Any:
    app = typer.Typer()
    train.register(app)
    specialize.register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train") / "digits.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def trained(config: Path) -> dict[str, Any]:
    result = ofa("train", config, "-o", config.parent / "run", "--set", "phases.full.epochs=2", "--set", "seed=1", "--json")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_training_writes_a_run_and_tells_what_came_out(trained: dict[str, Any]) -> None:
    run = load_run(trained["run"])
    assert run.recipe.seed == 1
    assert len(run.metrics) == trained["epochs"] == 2
    assert trained["loss"] == run.metrics[-1].loss
    # The recipe trains at 16 px alone.
    assert [(row["network"], row["resolution"]) for row in trained["networks"]] == [("smallest", 16), ("largest", 16)]
    assert trained["chance_cross_entropy"] == pytest.approx(math.log(10))
    assert trained["cross_entropy"] == run.metrics[-1].cross_entropy < trained["chance_cross_entropy"]
    # Whose choices no phase opens, and which therefore learned nothing.
    (warning,) = trained["warnings"]
    assert "but smallest" in warning
    assert "free the genes of these networks in a phase" in warning
    assert trained["networks"][1]["accuracy"] > 0.5
    assert trained["networks"][0]["macs"] < trained["networks"][1]["macs"]


def test_a_run_is_replaced_only_when_asked(trained: dict[str, Any], config: Path) -> None:
    with pytest.raises(FileError, match="choose another folder or add --overwrite"):
        ofa("train", config, "-o", trained["run"])


def test_a_wrong_recipe_is_told_before_anything_is_written(config: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'batch_size'"):
        ofa("train", config, "-o", tmp_path / "run", "--set", "batchsize=3")
    with pytest.raises(FileError, match="does not"):
        ofa("train", config, "-o", tmp_path / "absent" / "run")
    assert not list(tmp_path.iterdir())


def test_a_network_of_a_run_is_specialized_into_a_bundle(trained: dict[str, Any], tmp_path: Path) -> None:
    arch = get_space("ofa-mbv3-tiny").smallest(16)
    arch.save(tmp_path / "arch.json")
    result = ofa("specialize", trained["run"], "--arch", tmp_path / "arch.json", "-o", tmp_path / "bundle", "--epochs", 1, "--json")
    report = json.loads(result.stdout)
    bundle = load_bundle(tmp_path / "bundle")
    splits = load_run(trained["run"]).recipe.load_splits()
    assert bundle.arch == arch
    assert (bundle.mean, bundle.std) == splits.test.normalization
    assert bundle.class_names == splits.test.class_names
    assert evaluate(bundle.network(), splits.test, resolution=16) == bundle.card.accuracy == report["accuracy"]
    assert report["accuracy"] > report["accuracy_before"]


def test_people_see_a_table(trained: dict[str, Any], tmp_path: Path) -> None:
    get_space("ofa-mbv3-tiny").largest(16).save(tmp_path / "arch.json")
    result = ofa("specialize", trained["run"], "--arch", tmp_path / "arch.json", "-o", tmp_path / "bundle", "--epochs", 0)
    assert "accuracy of the teacher" in result.stdout


def line_count(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines())


@pytest.mark.slow  # tests/faults/test_kills.py kills smaller runs in every `make test`
def test_a_run_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(config: Path, tmp_path: Path) -> None:
    """A real process, really killed."""
    told = ("phases.full.epochs=8", "checkpoint_steps=3", "evaluate_every=0", "fractions=[0.2, 0.1, 0.7]")
    changes = [word for change in told for word in ("--set", change)]
    command = [sys.executable, "-m", "ofa", "train", str(config), *changes, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "-o", str(tmp_path / "killed.run")], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "killed.run" / "metrics.jsonl").exists() and line_count(tmp_path / "killed.run") >= 2):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed.run" / "supernet.safetensors").exists()
    for name, more in (("killed.run", ["--resume"]), ("whole.run", [])):
        subprocess.run([*command, "-o", str(tmp_path / name), *more], env=environment, check=True, capture_output=True)
    killed, whole = (load_run(tmp_path / name) for name in ("killed.run", "whole.run"))
    assert [epoch.step for epoch in killed.metrics] == [epoch.step for epoch in whole.metrics]
    assert [epoch.loss for epoch in killed.metrics] == [epoch.loss for epoch in whole.metrics]
    others = whole.supernet.named_tensors()
    assert all(torch.equal(tensor, others[name]) for name, tensor in killed.supernet.named_tensors().items())


def test_a_dry_run_tells_phases_time_and_memory_and_writes_nothing(config: Path, tmp_path: Path) -> None:
    result = ofa("train", config, "--dry-run", "--device", "cpu", "--json")
    report = json.loads(result.stdout)
    (phase,) = report["phases"]
    assert phase["phase"] == "full"
    assert phase["steps"] == 9 * (report["train_images"] // 32)
    assert phase["duration_s"] == pytest.approx(phase["steps"] * phase["step_ms"] / 1e3)
    assert report["duration_s"] == pytest.approx(phase["duration_s"])
    assert report["peak_memory_bytes"] > 2**20
    assert report["loader_images_per_s"] > phase["images_per_s"]
    assert not list(tmp_path.iterdir())
    shown = ofa("train", config, "--dry-run", "--device", "cpu").stdout
    assert "about" in shown
    assert " ms" in shown
    assert "ms ms" not in shown


def test_a_dry_run_looks_at_some_of_many_images_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "_MOST_IMAGES", 40)
    for label, (name, count) in enumerate({"few": 8, "many": 192}.items()):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((16, 16, 3), 100 * label + number % 90, dtype=np.uint8)
            pixels[0, 0] = number
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    changes = [f"data={tmp_path / 'photos'}", "space=ofa-mbv3-tiny", "single_stage.subnets_per_step=2", "batch_size=16"]
    words = [word for change in changes for word in ("--set", change)]
    result = ofa("train", "single-stage", "--dry-run", "--device", "cpu", *words, "--json")
    report = json.loads(result.stdout)
    assert report["images"] == 200
    assert 40 <= report["images_looked_at"] <= 56
    assert report["train_images"] == pytest.approx(160, abs=8)
    assert report["phases"][0]["steps"] == 60 * (report["train_images"] // 16)
    (warning,) = report["warnings"]
    assert "subnets_per_step should be at least 3 with sandwich" in warning
    assert warning in " ".join(result.stderr.split())


def test_metrics_are_written_for_tensorboard(config: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ofa("train", config, "-o", tmp_path / "run", "--tensorboard", *FEW, "--set", "phases.full.epochs=2")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    metrics = load_run(tmp_path / "run").metrics
    assert [event.step for event in events.Scalars("training/loss")] == [epoch.step for epoch in metrics]
    assert [event.value for event in events.Scalars("training/largest_accuracy")] == pytest.approx(
        [epoch.largest_accuracy for epoch in metrics]
    )


def test_a_recipe_that_comes_along_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="did you mean 'small-budget'"):
        ofa("train", "small-budgt", "-o", tmp_path / "run")
    with pytest.raises(FileError, match="check the path"):
        ofa("train", tmp_path / "absent.toml", "-o", tmp_path / "run")
    with pytest.raises(DataError, match=r"'train\.parquet' is none of them"):
        ofa("train", "small-budget", "-o", tmp_path / "run", "--device", "cpu")


def test_images_of_ones_own_are_trained_on_and_broken_ones_named(tmp_path: Path) -> None:
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(24):
            pixels = np.full((32, 32, 3), 150 * label + number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "dark" / "3.png").write_bytes(b"broken")
    changes = [f"data={tmp_path / 'photos'}", "space=ofa-mbv3-tiny", "progressive_shrinking.epochs=5", "batch_size=16", "augmentation={}"]
    arguments = ["train", "small-budget", "-o", tmp_path / "run", "--device", "cpu", *(word for c in changes for word in ("--set", c))]
    with pytest.raises(DataError, match=r"1 of 48 are not: .*dark/3\.png"):
        ofa(*arguments)
    ofa(*arguments, "--overwrite", "--set", "unreadable=skip")
    assert load_run(tmp_path / "run").recipe.unreadable == "skip"


@pytest.mark.skipif(sys.platform != "linux", reason="mounts are Linux's")
def test_a_full_disk_is_told_and_the_last_good_state_kept(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up after the first states: writing fails as the kernel makes it fail."""
    import ofa.weights as weights

    real, written = weights.save_file, 0

    def fills_up(tensors: Any, path: Any, header: Any) -> None:
        nonlocal written
        written += 1
        if written > 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path, header)

    monkeypatch.setattr(weights, "save_file", fills_up)
    monkeypatch.setattr(state, "SECONDS_LEFT_OUT", 0.0)
    with pytest.raises(FileError, match="no space left on device"):
        ofa("train", config, "-o", tmp_path / "run", *FEW, "--set", "phases.full.epochs=3")
    monkeypatch.undo()
    states = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [state.suffix for state in states] == [".safetensors"] * 2
    ofa("train", config, "-o", tmp_path / "run", *FEW, "--set", "phases.full.epochs=3", "--resume")
    assert len(load_run(tmp_path / "run").metrics) == 3


def test_a_folder_of_other_things_does_not_become_a_run_unasked(config: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"mine")
    with pytest.raises(FileError, match="exists and is not empty"):
        ofa("train", config, "-o", tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.png"]
