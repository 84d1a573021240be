"""``ofa train --from`` and teachers on the command line, from the option to what a run, its report and its bundles say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from ofa.api import train as train_in_python
from ofa.cli import report, specialize, train
from ofa.errors import FileError, RecipeError, WeightsError
from ofa.exporting.bundle import load_bundle
from ofa.families import get_space
from ofa.training import load_run
from tests.recipes import digits_recipe

FEW = "fractions = [0.04, 0.03, 0.93]"


def ofa(*arguments: object) -> Any:
    app = typer.Typer()
    for module in (train, specialize, report):
        module.register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "digits.toml"
    path.write_text(digits_recipe(1, FEW))
    return path


@pytest.fixture(scope="module")
def first(config: Path) -> Path:
    run = config.parent / "first.run"
    ofa("train", config, "-o", run, "--on", "cpu", "--set", "evaluate_every=0")
    return run


@pytest.fixture(scope="module")
def photos(config: Path) -> Path:
    """Three classes of photos."""
    for label, name in enumerate(("dark", "grey", "light")):
        (config.parent / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((16, 16, 3), 100 * label + number, dtype=np.uint8)
            Image.fromarray(pixels).save(config.parent / "photos" / name / f"{number}.png")
    return config.parent / "photos"


def of_photos(photos: Path) -> tuple[str, ...]:
    return ("--set", f"data={photos}", "--set", "fractions=[0.5, 0.25, 0.25]", "--set", "batch_size=8", "--on", "cpu")


def test_a_run_starts_from_another_and_goes_on_without_being_told_again(config: Path, first: Path, photos: Path, tmp_path: Path) -> None:
    run, frozen = tmp_path / "second.run", ("--set", 'frozen=["stem*", "stages"]')
    command = ("train", config, "-o", run, "--from", first, *frozen, *of_photos(photos))
    result = ofa(*command, "--json")
    start = json.loads(result.stdout)["start"]
    assert (start["path"], start["new"]) == (str(first), ["classifier.linear.weight", "classifier.linear.bias"])
    assert f"are taken from '{first}'; the classifier is new" in " ".join(result.stderr.split())
    loaded, other = load_run(run), load_run(first).supernet.named_tensors()
    own = loaded.supernet.named_tensors()
    assert loaded.recipe.start is not None
    assert loaded.recipe.start.tensors == len(own) - 2
    assert all(torch.equal(tensor, other[name]) for name, tensor in own.items() if name.startswith("st"))
    assert own["classifier.linear.weight"].shape[0] == 3
    # In Python it ends with the same weights.
    again = train_in_python(loaded.recipe, tmp_path / "python.run", on="cpu").supernet.named_tensors()
    assert all(torch.equal(tensor, again[name]) for name, tensor in own.items())
    # A run that goes on knows its start, says so if it is told another, and does not need it.
    (run / "supernet.safetensors").unlink()
    ofa("train", "--resume", run, "--on", "cpu")
    ofa(*command, "--resume")
    shutil.copytree(first, tmp_path / "copy.run")
    with pytest.raises(RecipeError, match=r"differs from '.*config\.toml' in start\.path"):
        ofa("train", config, "-o", run, "--from", tmp_path / "copy.run", *frozen, *of_photos(photos), "--resume")
    assert all(torch.equal(tensor, own[name]) for name, tensor in load_run(run).supernet.named_tensors().items())
    ofa("report", run, "-o", tmp_path / "page.html")
    assert start["sha256"] in (tmp_path / "page.html").read_text()


def test_a_network_is_specialized_beside_the_teacher_that_is_named(config: Path, first: Path, tmp_path: Path) -> None:
    get_space("ofa-mbv3-tiny").smallest(16).save(tmp_path / "arch.json")
    command = ("specialize", first, "--arch", tmp_path / "arch.json", "--epochs", 1, "--on", "cpu")
    ofa(*command, "-o", tmp_path / "bundle", "--teacher", first)
    assert load_bundle(tmp_path / "bundle").card.provenance["teacher"] == str(first)
    with pytest.raises(RecipeError, match="must give finite logits"):
        ofa(*command, "-o", tmp_path / "other", "--teacher", "torch.nn:Identity")
    # The bundle teaches a supernet, whose run says so.
    changes = ("--set", "phases.full.distillation_weight=1", "--set", f"teacher={tmp_path / 'bundle'}", "--on", "cpu")
    ofa("train", config, "-o", tmp_path / "taught.run", *changes)
    assert load_run(tmp_path / "taught.run").recipe.teacher == str(tmp_path / "bundle")


def test_what_does_not_fit_is_told_before_anything_is_written(config: Path, first: Path, photos: Path, tmp_path: Path) -> None:
    known = {path.name for path in tmp_path.iterdir()}
    command = ("train", config, "-o", tmp_path / "run", "--from", first)
    with pytest.raises(WeightsError, match="a classifier can be kept only for the classes that it knows"):
        ofa(*command, "--set", "start.classifier=keep", *of_photos(photos))
    with pytest.raises(WeightsError, match=r"must have the \d+ tensors of ofa-resnet50-tiny"):
        ofa(*command, "--set", "space=ofa-resnet50-tiny", "--set", "phases.full.resolutions=[24]", "--set", "data=no-such-data")
    with pytest.raises(FileError, match="is not there"):
        ofa("train", config, "-o", tmp_path / "run", "--from", tmp_path / "absent", "--dry-run")
    taught = ("--set", "phases.full.distillation_weight=1", "--set", f"teacher={first}")
    with pytest.raises(RecipeError, match="must have the classes of the data"):
        ofa("train", config, "-o", tmp_path / "run", *taught, *of_photos(photos))
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == known
