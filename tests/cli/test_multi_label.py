"""Images of any number of classes walk the whole road on the command line, and every result is called by its metric."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ofa.errors import DataError
from ofa.exporting.bundle import load_bundle
from ofa.training import load_run
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor
from tests.commands import command_line

BANDS = {"ground": np.s_[10:], "sky": np.s_[:6], "wall": np.s_[:, :5]}
RECIPE = """
space = "ofa-mbv3-tiny"
data = "bands.parquet"
task = "multi_label"
optimizer = "adamw"
batch_size = 16
fractions = [0.5, 0.25, 0.25]
evaluate_every = 0

[single_stage]
epochs = 6
learning_rate = 0.01
subnets_per_step = 2
distillation_weight = 1.0
divergence = "kl"
resolutions = [16]
"""


def write_bands(path: Path, count: int = 160) -> None:
    """Pictures in which each of three bands is bright or not, with a list of those that are."""
    rng, names = np.random.default_rng(0), list(BANDS)
    images, labels = [], []
    for _ in range(count):
        pixels = rng.integers(0, 90, (16, 16, 3)).astype(np.uint8)
        bright = [name for name in names if rng.random() < 0.4]
        for name in bright:
            pixels[BANDS[name]] += 110
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
        labels.append(bright)
    pq.write_table(pa.table({"image": images, "labels": labels}), path)


def ofa(*arguments: Any) -> dict[str, Any]:
    result = command_line(*arguments, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bands")
    write_bands(folder / "bands.parquet")
    (folder / "recipe.toml").write_text(RECIPE.replace("bands.parquet", str(folder / "bands.parquet")))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    return ofa("train", folder / "recipe.toml", "-o", folder / "run")


def test_a_supernet_learns(folder: Path, trained: dict[str, Any]) -> None:
    assert trained["metric"] == "mAP"
    assert trained["chance_cross_entropy"] == pytest.approx(np.log(2))
    assert trained["cross_entropy"] < 0.5
    assert max(row["accuracy"] for row in trained["networks"]) > 0.8
    run = load_run(folder / "run")
    found = run.load_data()
    assert found.splits.train.class_names == tuple(BANDS)
    assert found.splits.train.labels.shape == (len(found.splits.train), 3)
    assert found.record is not None
    assert found.record.digest == found.record.load(folder / "run").digest  # type: ignore[union-attr]


def test_from_a_predictor_to_a_bundle(folder: Path, trained: dict[str, Any]) -> None:
    run, predictor, front, bundle = (folder / name for name in ("run", "p.parquet", "front.parquet", "bundle"))
    fitted = ofa("predictor", "fit", run, "--nets", 12, "-o", predictor)
    assert fitted["metric"] == AccuracyPredictor.load(predictor).info.metric == "mAP"
    searched = ofa("search", "--predictor", predictor, "-o", front, "--trade", "macs", "--trials", 8, "--evaluations", 200)
    assert searched["metric"] == Front.load(front).info.metric == "mAP"
    assert ofa("query", front, "--accuracy", "50%")["metric"] == "mAP"
    made = ofa("specialize", run, "--front", front, "--accuracy", "50%", "--epochs", 2, "-o", bundle)
    assert made["metric"] == load_bundle(bundle).card.metric == "mAP"
    assert made["accuracy"] > 0.8
    assert load_bundle(bundle).class_names == tuple(BANDS)


@pytest.mark.parametrize("what", ["run", "front"])
def test_reports_call_the_score_by_its_name(folder: Path, trained: dict[str, Any], what: str) -> None:
    source = folder / "run"
    if what == "front":
        source = folder / "measured.parquet"
        ofa("search", "--supernet", folder / "run", "-o", source, "--trade", "macs", "--trials", 12)
    ofa("report", source, "-o", folder / f"{what}.html")
    assert "mAP" in (folder / f"{what}.html").read_text(encoding="utf-8")


def test_a_run_goes_on_with_images_of_its_own_labels_alone(folder: Path, trained: dict[str, Any]) -> None:
    table = pq.read_table(folder / "bands.parquet")
    swapped = [["wall"] if number == 0 else labels for number, labels in enumerate(table.column("labels").to_pylist())]
    pq.write_table(pa.table({"image": table.column("image"), "labels": swapped}), folder / "swapped.parquet")
    changes = load_run(folder / "run").load_data(data=str(folder / "swapped.parquet")).changes
    assert sum(changes.relabelled.values()) == (table.column("labels")[0].as_py() != ["wall"])
    single = [labels[0] if labels else "none" for labels in swapped]
    pq.write_table(pa.table({"image": table.column("image"), "labels": single}), folder / "single.parquet")
    with pytest.raises(DataError, match=r"must have a list of classes an image .* has one class an image; name the images of the run"):
        load_run(folder / "run").load_data(data=str(folder / "single.parquet"))


@pytest.mark.parametrize(("task", "words"), [("classification", 'set task = "multi_label"'), ("multilabel", "did you mean 'multi_label'")])
def test_another_task_is_refused_in_a_sentence(folder: Path, task: str, words: str) -> None:
    result = command_line("train", folder / "recipe.toml", "-o", folder / "other", "--set", f"task={task}")
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())
