from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ofa.errors import FileError, RecipeError, WeightsError
from ofa.training import EpochMetrics, Recipe, append_metrics, begin_run, load_run, save_run

MakeRecipe = Callable[..., Recipe]


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        phase="full", epoch=number, epochs=2, loss=1 / number, accuracy=0.5, learning_rate=0.1, images_per_s=900.5, duration_s=1.25
    )


@pytest.fixture
def run(tmp_path: Path, recipe_of: MakeRecipe) -> Path:
    recipe = recipe_of("ofa-mbv3-tiny", seed=3)
    save_run(tmp_path / "run", recipe.build_supernet(10), recipe, [epoch(1), epoch(2)])
    return tmp_path / "run"


def test_a_run_is_read_back_as_it_was(run: Path, recipe_of: MakeRecipe) -> None:
    recipe = recipe_of("ofa-mbv3-tiny", seed=3)
    loaded = load_run(run)
    assert loaded.recipe == recipe
    assert loaded.metrics == (epoch(1), epoch(2))
    expected = recipe.build_supernet(10).named_tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.supernet.named_tensors().items())


def test_the_files_of_a_run_are_plain(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir()) == ["config.toml", "metrics.jsonl", "supernet.safetensors"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "phase": "full",
        "epoch": 1,
        "epochs": 2,
        "loss": 1.0,
        "accuracy": 0.5,
        "learning_rate": 0.1,
        "images_per_s": 900.5,
        "duration_s": 1.25,
        "step": 0,
        "waiting_s": 0.0,
        "cross_entropy": None,
        "rate_factor": 1.0,
        "smallest_accuracy": None,
        "middle_accuracy": None,
        "largest_accuracy": None,
    }


def test_a_run_that_dies_leaves_its_recipe_and_metrics(tmp_path: Path, recipe_of: MakeRecipe) -> None:
    folder, recipe = tmp_path / "new" / "run", recipe_of("ofa-mbv3-tiny")
    begin_run(folder, recipe)
    append_metrics(folder, epoch(1))
    assert Recipe.load(folder / "config.toml") == recipe
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    with pytest.raises(FileError, match=r"lacks supernet\.safetensors"):
        load_run(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, recipe_of: MakeRecipe) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file/run"):
        begin_run(tmp_path / "file" / "run", recipe_of("ofa-mbv3-tiny"))
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        append_metrics(tmp_path / "absent", epoch(1))


@pytest.mark.parametrize("line", ["{", "3", '{"phase": "full"}', '{"phase": 1, "loss": "low"}'])
def test_damaged_metrics_are_named_by_line(run: Path, line: str) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(FileError, match="line 3"):
        load_run(run)


def test_damaged_weights_and_recipes_are_refused(run: Path) -> None:
    weights = (run / "supernet.safetensors").read_bytes()
    (run / "supernet.safetensors").write_bytes(weights[:-100])
    with pytest.raises(WeightsError):
        load_run(run)
    (run / "supernet.safetensors").write_bytes(weights)
    (run / "config.toml").write_text("space = 3\n")
    with pytest.raises(RecipeError):
        load_run(run)


def test_weights_of_another_space_than_the_recipes_are_refused(run: Path, recipe_of: MakeRecipe) -> None:
    (run / "config.toml").write_text(recipe_of("ofa-resnet50-tiny").to_toml())
    with pytest.raises(WeightsError, match="of ofa-mbv3-tiny and the recipe of ofa-resnet50-tiny"):
        load_run(run)
