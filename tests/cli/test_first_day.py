"""A first day: from a folder of photos as people have them to a verified network, by the command line alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from ofa.exporting.bundle import load_bundle
from tests.photos import CLASSES, Dirt, photo, write_photos

SPACE = "ofa-mbv3-tiny"
TRAINING = (
    "space=ofa-mbv3-tiny",
    "batch_size=16",
    "fractions=[0.6, 0.2, 0.2]",
    "progressive_shrinking.epochs=12",
    "progressive_shrinking.learning_rate=0.1",
    "progressive_shrinking.subnets_per_step=3",
    "augmentation.flip=false",  # what is at the left stays there
)


class Day:
    """A person in a folder who types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commands, self.started = folder, 0, time.monotonic()

    def ofa(self, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        """One command; what it says on stderr never has an exception in it."""
        self.commands += 1
        command = [sys.executable, "-m", "ofa", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        assert done.returncode == status, f"{' '.join(command[2:])} ended with {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert "should not have happened" not in done.stderr
        return done

    def answer(self, *words: object) -> Any:
        """What a command says in JSON."""
        return json.loads(self.ofa(*words, "--json").stdout)


@pytest.mark.slow
def test_from_photos_to_a_verified_network(tmp_path: Path, record_property: Any) -> None:
    day = Day(tmp_path)
    dirt = write_photos(tmp_path / "photos", 48)
    _look(day, dirt)
    changes = [word for change in ("data=photos", *TRAINING) for word in ("--set", change)]
    refused = day.ofa("train", "small-budget", *changes, "-o", "run", status=1)
    assert "cut.jpg" in refused.stderr, "training on broken images is refused before it begins, and names them"
    trained = day.answer("train", "small-budget", *changes, "--set", "unreadable=skip", "-o", "run")
    assert trained["train_images"] + trained["selection_images"] < dirt.whole
    _more_photos(tmp_path / "photos")
    _measure_and_search(day)
    bundle = _ship(day)
    _use(bundle)
    _refuse(day, changes)
    record_property("commands", day.commands)
    record_property("seconds", round(time.monotonic() - day.started))


def _look(day: Day, dirt: Dirt) -> None:
    """Everything in the folder is counted."""
    seen = day.answer("data", "photos", "-o", "photos.html")
    assert seen["images"] == dirt.whole
    kinds = [file["kind"] for file in seen["left_out"]]
    assert kinds.count("unreadable") == dirt.broken
    assert kinds.count("no image") == dirt.others
    assert kinds.count("hidden") == dirt.hidden
    assert sum(len(copies["names"]) - 1 for copies in seen["copies"]) == dirt.copies
    assert not any(len(copies["parts"]) > 1 for copies in seen["copies"])
    assert (day.folder / "photos.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def _more_photos(root: Path) -> None:
    """Somebody adds photos after the training."""
    for label, name in enumerate(CLASSES):
        for number in range(3):
            photo(label, 9000 + 10 * label + number).save(root / name / f"later{number}.png")


def _measure_and_search(day: Day) -> None:
    day.ofa("table", "build", "--space", SPACE, "--classes", len(CLASSES), "--device", "local-cpu", "-o", "cpu.parquet")
    day.ofa("table", "calibrate", "cpu.parquet", "--space", SPACE, "--classes", len(CLASSES), "--device", "local-cpu")
    fitted = day.ofa("predictor", "fit", "run", "--nets", 24, "--rounds", 0, "-o", "predictor.parquet")
    assert "new" in fitted.stderr, "that images were added is said"
    day.ofa("search", "--predictor", "predictor.parquet", "--table", "cpu.parquet", "-o", "front.parquet")
    day.ofa("report", "front.parquet", "-o", "front.html")
    (best,) = day.answer("query", "front.parquet", "--macs", "100M")["results"]
    assert best["accuracy"] > 0.5


def _ship(day: Day) -> Path:
    made = day.answer("specialize", "run", "--front", "front.parquet", "--macs", "100M", "--epochs", 2, "-o", "network")
    assert made["accuracy"] > 0.8
    day.ofa("verify", "network", "--device", "local-cpu")
    day.ofa("export", "network", "--to", "onnx", "--batch", "2")
    day.ofa("verify", "network", "--device", "local-cpu")
    return day.folder / "network"


def _use(folder: Path) -> None:
    """What an application does with the bundle, by what the bundle says and nothing else: the classes come out under their names."""
    bundle = load_bundle(folder)
    session = onnxruntime.InferenceSession(str(bundle.onnx_path), providers=["CPUExecutionProvider"])
    side = bundle.arch.resolution
    right = 0
    for label, name in enumerate(CLASSES):
        for seed in range(10):
            middle = photo(label, 50_000 + seed, (60, 60)).resize((side, side), Image.Resampling.BILINEAR)
            x_HWC = (np.asarray(middle, np.float32) / 255 - bundle.mean) / bundle.std
            logits = session.run(None, {session.get_inputs()[0].name: x_HWC.transpose(2, 0, 1)[None].astype(np.float32)})[0]
            right += bundle.class_names[int(logits.argmax())] == name
    assert right > 24


def _refuse(day: Day, changes: list[str]) -> None:
    """What would give wrong numbers in silence does not go through."""
    day.ofa("train", "small-budget", *changes, "-o", "run", status=1)  # a run is there
    day.ofa("search", "--predictor", "predictor.parquet", "--table", "cpu.parquet", "-o", "front.parquet", status=1)
    photos = day.folder / "photos"
    (photos / CLASSES[0]).rename(photos / "zenith")
    renamed = day.ofa("specialize", "run", "--front", "front.parquet", "--macs", "100M", "-o", "other", status=1)
    assert "zenith" in renamed.stderr
    (photos / "zenith").rename(photos / CLASSES[0])
    shutil.copytree(photos / CLASSES[0], photos / "night")
    added = day.ofa("predictor", "fit", "run", "-o", "other.parquet", status=1)
    assert "night" in added.stderr
