from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ofa.cli import specialize, train
from ofa.errors import FileError, RecipeError
from ofa.export.bundle import load_bundle
from ofa.families import get_space
from ofa.training import evaluate, load_run

RECIPE = """
space = "ofa-mbv3-tiny"
data = "digits"
batch_size = 32

[[phases]]
name = "full"
epochs = 9
learning_rate = 0.1
resolutions = [16]
"""


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
    assert [(row["network"], row["resolution"]) for row in trained["networks"]] == [
        ("smallest", 16),
        ("largest", 16),
        ("smallest", 32),
        ("largest", 32),
    ]
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
