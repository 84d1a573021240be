"""Commands and the data of a run: what changed is said or refused, from any folder."""

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

from ofa.cli import importing, predictor, search, specialize, train
from ofa.errors import DataError
from ofa.exporting.bundle import load_bundle
from ofa.families import get_space
from ofa.interop.mit_keys import key_names
from ofa.supernet import Supernet
from ofa.training import DataRecord, Recipe, begin_run, first_data, load_run, save_run

RECIPE = """
space = "ofa-mbv3-tiny"
data = "photos"
batch_size = 8
evaluate_every = 0

[[phases]]
name = "full"
epochs = 1
learning_rate = 0.05
resolutions = [16]
"""


def ofa(*arguments: object) -> Any:
    app = typer.Typer()
    for command in (train, specialize, predictor, search, importing):
        command.register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, SystemExit) or result.exception is None:
        return result
    raise result.exception


def words(result: Any) -> str:
    return " ".join(result.stderr.split())


def draw(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, a recipe and a network, and the current one."""
    for label, name in enumerate(("a", "b")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            draw(tmp_path / "photos" / name / f"{number:02}.png", 100 * label + number)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    get_space("ofa-mbv3-tiny").smallest(16).save(tmp_path / "arch.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place: Path) -> Path:
    """A run that has ended, without the time that training takes."""
    recipe = Recipe.load("recipe.toml")
    begin_run("run", recipe, first_data(recipe).record)
    save_run("run", recipe.build_supernet(2), recipe, ())
    return place / "run"


def test_training_keeps_a_record(place: Path) -> None:
    report = json.loads(ofa("train", "recipe.toml", "-o", "run", "--device", "cpu", "--json").stdout)
    record = DataRecord.load("run")
    assert record is not None
    assert record.counts["train"] == report["train_images"]
    assert (record.facts.data.typed, record.facts.data.path) == ("photos", str(place / "photos"))
    assert not report["data_changes"]["changed"]
    assert sorted(path.name for path in Path("run").iterdir()) == ["config.toml", "data.parquet", "metrics.jsonl", "supernet.safetensors"]


def test_new_images_are_told_and_the_card_says_what_it_is_of(run: Path) -> None:
    before = set(map(bytes, load_run(run).load_data().splits.test.keys.numpy()))
    for number in range(6):
        draw(Path("photos", "a", f"0 new {number}.png"), 7000 + number)
    result = ofa("specialize", run, "--arch", "arch.json", "--epochs", 0, "-o", "bundle", "--json")
    assert "ofa: the data has changed since the run began: 6 images are new" in words(result)
    changes = json.loads(result.stdout)["data_changes"]
    assert sum(changes["added"].values()) == 6
    bundle, record = load_bundle("bundle"), DataRecord.load(run)
    assert record is not None
    assert bundle.class_names == ("a", "b")
    assert bundle.card.provenance["data"] == "photos"
    assert bundle.card.provenance["data_digest"] == record.digest
    assert bundle.card.provenance["data_changed"] is True
    assert before <= set(map(bytes, load_run(run).load_data().splits.test.keys.numpy()))


def test_images_that_cannot_be_read_are_named_by_later_commands_too(place: Path) -> None:
    Path("recipe.toml").write_text('unreadable = "skip"\n' + RECIPE)
    recipe = Recipe.load("recipe.toml")
    begin_run("run", recipe, first_data(recipe).record)
    save_run("run", recipe.build_supernet(2), recipe, ())
    Path("photos", "a", "new.png").write_bytes(b"broken")
    Path("photos", "a", "03.png").write_bytes(b"broken")
    result = ofa("specialize", "run", "--arch", "arch.json", "--epochs", 0, "-o", "bundle")
    assert "ofa: 2 images cannot be read and are skipped: " in words(result)
    assert "1 image is gone" in words(result)


@pytest.mark.parametrize(
    "command",
    [
        ("specialize", "run", "--arch", "arch.json", "--epochs", 0, "-o", "bundle"),
        ("predictor", "fit", "run", "--nets", 10, "-o", "p.parquet"),
        ("search", "--supernet", "run", "--trials", 4, "-o", "f.parquet"),
    ],
)
def test_every_command_refuses_other_classes_and_takes_a_new_place(run: Path, command: tuple[object, ...]) -> None:
    Path("photos").rename("moved")
    with pytest.raises(DataError, match="say where they are now with --data PATH"):
        ofa(*command)
    Path("moved", "a").rename(Path("moved", "c"))
    with pytest.raises(DataError, match="the images of 'a' are in 'c' now"):
        ofa(*command, "--data", "moved")
    recipe = Recipe.load(run / "config.toml")
    save_run(run, recipe.build_supernet(5), recipe, ())
    with pytest.raises(DataError, match="it has 5 and the data has 2 classes"):
        ofa(*command, "--data", "moved")
    assert not {"bundle", "p.parquet", "f.parquet"} & {path.name for path in Path().iterdir()}


def test_a_run_goes_on_from_any_folder_with_the_images_it_began_with(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.load("recipe.toml")
    begun = first_data(recipe)
    begin_run("run", recipe, begun.record)
    draw(Path("photos", "b", "0 new.png"), 7000)
    (place / "away").mkdir()
    monkeypatch.chdir(place / "away")
    result = ofa("train", "../recipe.toml", "-o", "../run", "--resume", "--device", "cpu", "--json")
    assert "1 image is new and left out, because a run is resumed with the images that it began with" in words(result)
    assert json.loads(result.stdout)["train_images"] == len(begun.splits.train)
    record = DataRecord.load("../run")
    assert record is not None
    assert begun.record is not None
    assert record.digest == begun.record.digest


def test_a_run_goes_on_where_its_images_are_now(place: Path) -> None:
    recipe = Recipe.load("recipe.toml")
    begin_run("run", recipe, first_data(recipe).record)
    Path("photos").rename("moved")
    with pytest.raises(DataError, match="say where they are now with --data PATH"):
        ofa("train", "recipe.toml", "-o", "run", "--resume", "--device", "cpu")
    ofa("train", "recipe.toml", "-o", "run", "--resume", "--device", "cpu", "--data", "moved")
    assert load_run("run").recipe.data == str(place / "moved")
    with pytest.raises(DataError, match="but 'nowhere' is none of them"):  # what is typed is taken in place of the recipe's
        ofa("train", "recipe.toml", "-o", "other", "--data", "nowhere")


def test_a_run_of_an_earlier_version_says_what_it_lacks(run: Path) -> None:
    (run / "data.parquet").unlink()
    result = ofa("specialize", run, "--arch", "arch.json", "--epochs", 0, "-o", "bundle")
    assert words(result).count("this run has no record of its data") == 1


def test_an_imported_run_has_a_record_where_its_data_can_be_its_own(place: Path) -> None:
    space = get_space("ofa-mbv3-tiny", 2)
    names, tensors = key_names(space), Supernet(space, generator=torch.Generator().manual_seed(0)).named_tensors()
    state = {f"_orig_mod.{names[name]}": tensor.detach().clone() for name, tensor in tensors.items()}
    average = {key: tensor + 1 for key, tensor in state.items()}
    torch.save({"state_dict": state, "ema": average}, "weights.pth")
    words_of_import = ("import", "mit-weights", "weights.pth", "--space", "ofa-mbv3-tiny", "--classes", 2, "--overwrite", "-o")
    result = ofa(*words_of_import, "known", "--data", "photos", "--json")
    assert DataRecord.load("known") is not None
    assert json.loads(result.stdout)["entry"] == "state_dict"
    assert "ofa: the weights in 'state_dict' are taken, and those in ema left; add --ema to take the others" in words(result)
    for data, reason in (("digits", "it has 2 and the data has 10 classes"), ("absent", "'absent' is none of them")):
        result = ofa(*words_of_import, "known", "--data", data)
        assert reason in words(result)
        assert DataRecord.load("known") is None
    ofa(*words_of_import, "average", "--ema")
    stored = load_run("average").supernet.named_tensors()
    assert all(torch.equal(stored[name], tensor + 1) for name, tensor in tensors.items())
    shutil.rmtree("average")
