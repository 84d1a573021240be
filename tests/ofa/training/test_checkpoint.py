from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ofa.errors import DamagedError, FileError, RecipeError, WeightsError
from ofa.training import (
    EpochMetrics,
    Recipe,
    TrainingState,
    append_metrics,
    begin_run,
    continue_run,
    extend_run,
    load_run,
    save_run,
    save_state,
)
from ofa.training.checkpoint import is_free
from ofa.weights import read_weights, write_weights

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
    assert len(lines[0].pop("crc")) == 8
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


def test_what_a_beginning_leaves_that_is_killed_is_no_bar_to_the_next(tmp_path: Path, recipe_of: MakeRecipe) -> None:
    assert is_free(tmp_path)
    (tmp_path / "data.parquet").write_text("somebody's own")
    assert not is_free(tmp_path)
    (tmp_path / "data.parquet").unlink()
    begin_run(tmp_path, recipe_of("ofa-mbv3-tiny"))
    assert not is_free(tmp_path)
    (tmp_path / "config.toml").rename(tmp_path / ".config.toml.00000000.ofa.part")
    assert is_free(tmp_path)
    append_metrics(tmp_path, epoch(1))
    assert not is_free(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, recipe_of: MakeRecipe) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file/run"):
        begin_run(tmp_path / "file" / "run", recipe_of("ofa-mbv3-tiny"))
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        append_metrics(tmp_path / "absent", epoch(1))


@pytest.mark.parametrize("line", ["{", "3", '{"phase": "full"}', '{"phase": 1, "loss": "low"}', "half a li"])
def test_a_damaged_line_of_metrics_costs_that_line(run: Path, line: str) -> None:
    before, after = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(f"{before}{line}\n{after}half a li")
    loaded = load_run(run)
    assert (loaded.metrics, loaded.damaged) == ((epoch(1), epoch(2)), 1)


def test_metrics_of_earlier_versions_are_read(run: Path) -> None:
    lines = [re.sub('"crc": "[0-9a-f]{8}", ', "", line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text(f"{lines[0]}\n{lines[1].replace('phase', 'phrase')}\n")
    assert (load_run(run).metrics, load_run(run).damaged) == ((epoch(1),), 1)


def states_of(tmp_path: Path, recipe: Recipe) -> list[Path]:
    """A run that goes on, with two states."""
    begin_run(tmp_path, recipe)
    store = {f"store.{name}": tensor for name, tensor in recipe.build_supernet(10).state_dict().items()}
    for step in (1, 2):
        save_state(tmp_path, recipe, TrainingState(step, store, {"rate_factor": 1.0, "setbacks": 0, "totals": {}}))
    return sorted((tmp_path / "checkpoints").iterdir())


def test_a_state_may_say_that_there_was_no_best_loss_yet(tmp_path: Path, recipe_of: MakeRecipe) -> None:
    recipe = recipe_of("ofa-mbv3-tiny")
    states_of(tmp_path, recipe)
    values = {"rate_factor": 1.0, "setbacks": 0, "totals": {}, "guard": {"best_loss": float("inf")}}
    save_state(tmp_path, recipe, TrainingState(3, {}, values))
    state, _ = continue_run(tmp_path, recipe)
    assert state is not None
    assert (state.step, state.values) == (3, values)


def rewritten(path: Path, **header: str) -> None:
    """Another state in place of one, whole in itself: of a version that wrote something else, or of a defect."""
    weights = read_weights(path, kind="checkpoint")
    write_weights(weights.tensors, path, {**weights.metadata, **header})


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "values that are no JSON": lambda path: rewritten(path, values="{"),
    "values that are no object": lambda path: rewritten(path, values="[1]"),
    "values of another kind": lambda path: rewritten(path, values='{"rate_factor": "1", "setbacks": 0, "totals": {}}'),
    "values that lack one": lambda path: rewritten(path, values='{"rate_factor": 1.0, "totals": {}}'),
    "no step": lambda path: rewritten(path, step="two"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_goes_on_from_the_last_state_that_is_whole(damage: str, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    recipe, told = recipe_of("ofa-mbv3-tiny"), list[str]()
    first, last = states_of(tmp_path, recipe)
    DAMAGE[damage](last)
    state, _ = continue_run(tmp_path, recipe, write=False, on_note=told.append)
    assert state is not None
    assert (state.step, last.exists()) == (1, True), "of several processes one removes it"
    assert told == [f"'{last}' must be a whole state, but is damaged; training resumes from the state before, of step 1"]
    continue_run(tmp_path, recipe)
    assert sorted((tmp_path / "checkpoints").iterdir()) == [first]
    DAMAGE[damage](first)
    with pytest.raises(FileError, match=r"must have a whole state, but all 1 in .*checkpoints' are damaged; train anew"):
        continue_run(tmp_path, recipe)
    assert first.exists()


def test_a_run_whose_end_is_not_on_record_is_not_extended(run: Path) -> None:
    """Its steps count from there."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(lines[0] + "damaged\n")
    with pytest.raises(FileError, match="must know the step at which it ended"):
        extend_run(run, load_run(run).recipe)


def test_damaged_weights_and_recipes_are_refused(run: Path) -> None:
    weights = (run / "supernet.safetensors").read_bytes()
    (run / "supernet.safetensors").write_bytes(weights[:-100])
    with pytest.raises(DamagedError):
        load_run(run)
    (run / "supernet.safetensors").write_bytes(weights)
    (run / "config.toml").write_text("space = 3\n")
    with pytest.raises(RecipeError):
        load_run(run)


def test_weights_of_another_space_than_the_recipes_are_refused(run: Path, recipe_of: MakeRecipe) -> None:
    (run / "config.toml").write_text(recipe_of("ofa-resnet50-tiny").to_toml())
    with pytest.raises(WeightsError, match="of ofa-mbv3-tiny and the recipe of ofa-resnet50-tiny"):
        load_run(run)
