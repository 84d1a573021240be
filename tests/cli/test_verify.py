"""``ofa verify``: time, accuracy through the device's runtime, size, and every budget, in one table, one object and one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ofa.exporting.bundle import load_bundle
from ofa.training import load_run
from tests.commands import command_line


@pytest.fixture
def bundle(places: dict[str, Path], tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(places["bundle"], copy)
    return copy


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of some of the bundle's classes, of another size than it takes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("3", "7"):
        (folder / name).mkdir()
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


def answer(*arguments: object, status: int = 0) -> Any:
    result = command_line("verify", *arguments, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_file_runs_on_images_on_the_device(bundle: Path, photos: Path) -> None:
    load_bundle(bundle).note(accuracy=0.5, provenance={"test_images": 4})
    report = answer(bundle, "--device", "local-cpu", "--data", photos)
    judged = report["judged"]
    assert (judged["images"], judged["metric"], judged["same_class"]) == (8, "accuracy", 1.0)
    assert judged["score"] == judged["pytorch_score"]
    assert judged["difference"] < 1e-4
    assert judged["promised_accuracy"] == 0.5
    assert judged["accuracy_holds"] == (abs(judged["score"] - 0.5) <= 1.645 * np.hypot(judged["standard_error"], 0.25))
    assert report["file_bytes"] == pytest.approx((bundle / "network.onnx").stat().st_size, rel=0.1)
    assert (report["missed"], report["noted"], report["paused"]) == ([], True, None)
    assert load_bundle(bundle).card.measured_ms == report["measured_ms"]


def test_a_parquet_file_is_judged_as_a_folder_is(bundle: Path, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    images = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    pd.DataFrame({"image": images, "label": [int(path.parent.name) for path in paths]}).to_parquet(tmp_path / "photos.parquet")
    both = [answer(bundle, "--device", "fake", "--overwrite", "--data", data) for data in (photos, tmp_path / "photos.parquet")]
    assert both[0]["judged"] == both[1]["judged"]


def test_people_see_a_table_of_verdicts(bundle: Path) -> None:
    load_bundle(bundle).note(accuracy=1.0, latency_ms=1e-6, latency_low_ms=1e-7, latency_high_ms=1e-5, device="fake")
    given = ("--data", "digits", "--images", 12, "--accuracy", "0.001%", "--latency", "1s", "--size", "9MB", "--pause", "1ms")
    result = command_line("verify", bundle, "--device", "fake", *given, width=80)
    assert result.exit_code in (0, 1)
    lines = [" ".join(line.replace("│", " ").split()) for line in result.stdout.splitlines()]
    for words in (
        "measured, median",
        "measured, p90",
        "promised",
        "after 1 ms, median",
        "after 1 ms, p90",
        "accuracy, PyTorch",
        "same class",
    ):
        assert any(line.startswith(words) for line in lines), (words, lines)
    assert any(line.startswith("measured, median") and line.endswith("at most 1000 ms kept") for line in lines)
    assert any(line.startswith("promised") and line.endswith("differs") for line in lines)
    assert any(line.startswith("accuracy, card") and line.endswith("100.0 % on the card differs") for line in lines)
    assert any(line.startswith("file") and line.endswith("kept") for line in lines)
    assert "Judged on 12 images" in " ".join(lines)
    assert all(len(line) <= 80 or str(bundle) in line for line in result.stdout.splitlines())


def test_every_budget_that_is_missed_is_named_in_one_sentence(bundle: Path) -> None:
    given = ("--device", "fake", "--data", "digits", "--images", 10, "--overwrite")
    every = command_line("verify", bundle, *given, "--latency", "1us", "--accuracy", "100%", "--size", "1KB", "--json")
    assert every.exit_code == 1
    assert json.loads(every.stdout)["missed"] == ["latency", "accuracy", "size"]
    (sentence,) = [line for line in every.stderr.splitlines() if line.startswith("ofa: '")]
    for words in (
        "must take at most 0.001 ms on fake, but takes",
        "and must have accuracy of at least 100.0 % on fake, but has",
        "on 10 images",
    ):
        assert words in sentence
    assert "and must have a file of at most 1000 B, but its file has" in sentence
    assert sentence.endswith("; query the front for a network that keeps all of them")
    one = command_line("verify", bundle, "--device", "fake", "--size", "1KB")
    assert one.exit_code == 1
    assert "must have a file of at most 1000 B" in one.stderr
    assert "query the front with --weights, or export it in another precision" in one.stderr
    assert load_bundle(bundle).card.measured_ms is not None, "a missed budget is an answer, and what was measured is noted"


def test_images_of_a_run_are_those_that_it_was_tested_on(bundle: Path, places: dict[str, Path]) -> None:
    report = answer(bundle, "--device", "fake", "--data", places["run"])
    assert report["judged"]["images"] == len(load_run(places["run"]).load_data().splits.test)


def test_pauses_are_another_measurement(bundle: Path) -> None:
    report = answer(bundle, "--device", "fake", "--pause", "2ms")
    assert report["paused"]["pause_ms"] == 2.0
    assert report["paused"]["median_ms"] > 0
    assert report["conditions"]["pause_ms"] == 0.0, "promise and budget are of the device's own settings"
    assert list(bundle.parent.glob("*.journal")) == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--accuracy", "70%"], 2, "name them with --data"),
        (["--images", "9"], 2, "name them with --data"),
        (["--data", "{photos}", "--images", "0"], 2, "greater than or equal to 1"),
        (["--data", "{photos}", "--accuracy", "0.7"], 2, "write for example 76%"),
        (["--size", "2"], 2, "write for example 2MiB"),
        (["--pause", "100"], 2, "write for example 12ms"),
        (["--pause", "100s"], 1, "'pause_ms' of device 'fake' must be within 0 and 60000"),
        (["--data", "{others}"], 1, "cat"),
        (["--data", "{empty}"], 1, "folder"),
        (["--data", "{folder}/absent"], 1, "absent"),
    ],
)
def test_mistakes_are_one_sentence_and_change_nothing(
    arguments: list[str], status: int, words: str, bundle: Path, photos: Path, places: dict[str, Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    named = {"photos": photos, "others": places["photos"], "empty": empty, "folder": tmp_path}
    before = content(bundle)
    result = command_line("verify", bundle, "--device", "fake", *(each.format(**named) for each in arguments))
    assert result.exit_code == status, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert content(bundle) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "empty"]


def test_a_device_whose_runtime_lacks_the_precision_is_refused(bundle: Path, tmp_path: Path, photos: Path) -> None:
    device = tmp_path / "torch.toml"
    device.write_text('name = "torch"\nruntime = "pytorch"\nprecision = "int8"\n', encoding="utf-8")
    result = command_line("verify", bundle, "--device", device, "--data", photos)
    assert result.exit_code == 1
    assert "'precision' of device 'torch' must be one of pytorch, fp32, fp16, but is 'int8'" in " ".join(result.stderr.split())


def test_an_edited_bundle_is_refused(bundle: Path, photos: Path) -> None:
    network = bundle / "network.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"?")
    before = content(bundle)
    result = command_line("verify", bundle, "--device", "fake", "--data", photos)
    assert result.exit_code == 1
    assert "must be the file that was written with its bundle, but has another content" in " ".join(result.stderr.split())
    assert content(bundle) == before
