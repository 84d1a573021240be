"""From tables of one device in two precisions to a front, an answer that is timed, and a bundle: the network, and its precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency_tables import LatencyTable
from ofa.exporting.bundle import load_bundle
from ofa.training import demo_recipe, save_run
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.sampling import sample_stratified
from tests.cli.files import SPACE, write_table
from tests.commands import command_line
from tests.search.fakes import FakeAccuracy
from tests.search.predictor.losses import losses_of

DEVICE = 'name = "fake-int8"\nruntime = "fake"\nprecision = "int8"\n'


def invoke(*arguments: object) -> Any:
    return command_line(*arguments)


def ofa(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables: in int8 blocks of many MACs are faster, and small ones slower."""
    folder = tmp_path_factory.mktemp("precisions")
    recipe = demo_recipe()
    save_run(folder / "run", recipe.build_supernet(10), recipe, ())
    write_table(folder / "cpu")
    write_table(folder / "int8", device="fake-int8", precision="int8", block_ms=0.04, per_mmac_ms=0.3)
    write_table(folder / "other", device="other")
    (folder / "fake-int8.toml").write_text(DEVICE, encoding="utf-8")
    archs = sample_stratified(SPACE, 40, np.random.default_rng(0))
    AccuracyPredictor.fit(SPACE, archs, FakeAccuracy()(archs), np.random.default_rng(0)).save(folder / "predictor")
    losses_of(SPACE, slope=0.015).save(folder / "losses")  # at the highest resolution networks gain
    return folder


@pytest.fixture(scope="module")
def front(folder: Path) -> Path:
    tables = ("--table", folder / "cpu", "--table", folder / "int8", "--losses", folder / "losses")
    effort = ("--trials", 32, "--evaluations", 3000, "--picture", folder / "front.png")
    report = ofa("search", "--predictor", folder / "predictor", *tables, *effort, "-o", folder / "front")
    assert (report["devices"], set(report["conditions"])) == (["fake"], {"fake", "fake-int8"})
    assert min(report["precisions"].values()) > 0
    assert sum(report["precisions"].values()) == report["networks"]
    assert (report["cheapest"]["precision"], report["most_accurate"]["precision"]) == ("fp32", "int8")
    return folder / "front"


def test_a_front_answers_which_network_in_which_precision(front: Path, folder: Path) -> None:
    answer = ofa("query", front, "--latency", "900ms", "--top", 3)
    assert [network["precision"] for network in answer["results"]] == ["int8"] * 3
    people = invoke("query", front, "--latency", "0.5ms", "-o", folder / "arch.json")
    assert "precision" in people.stdout
    assert "the network was chosen in fp32, which" in people.stderr
    assert "precision" not in (folder / "arch.json").read_text(encoding="utf-8")
    small = ofa("query", front, "--weights", "60KB")["results"][0]
    assert (small["precision"], small["weight_bytes"] <= 60_000) == ("int8", True)
    assert "networks of the front: " in invoke("search", *_search(folder), "-o", folder / "again").stdout


def _search(folder: Path, *more: object) -> tuple[object, ...]:
    tables = ("--table", folder / "cpu", "--table", folder / "int8", "--losses", folder / "losses")
    return ("--predictor", folder / "predictor", *tables, "--trials", 16, "--evaluations", 500, *more)


def test_each_network_is_timed_in_its_precision(front: Path, folder: Path) -> None:
    copy, tables = folder / "verified", (folder / "own-cpu", folder / "own-int8")
    for path, original in ((copy, front), (tables[0], folder / "cpu"), (tables[1], folder / "int8")):
        path.write_bytes(original.read_bytes())
    devices = ("--device", "fake", "--device", folder / "fake-int8.toml", "--table", tables[1], "--table", tables[0])
    answer = ofa("query", copy, "--latency", "1s", "--top", 2, "--verify", *devices, "--update")
    assert answer["timed_on"] == ["fake", "fake-int8"]
    assert [network["precision"] for network in answer["results"]] == ["int8", "int8"]  # the most accurate ones
    assert all(set(network["devices"]) == {"fake"} and network["measured_ms"] > 0 for network in answer["results"])
    accuracies = [network["accuracy"] for network in answer["results"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert set(answer["conditions"]) == {"fake", "fake-int8"}
    learned = Front.load(copy)
    assert {each.device for each in learned.info.verified} == {"fake", "fake-int8"}
    assert len(learned) == len(Front.load(front))
    assert learned.precisions != ()
    assert LatencyTable.load(tables[1]).device_name == "fake-int8"


def test_one_device_answers_for_its_precision_and_that_is_said(front: Path, folder: Path) -> None:
    result = invoke("query", front, "--latency", "fake=1s", "--verify", "--device", folder / "fake-int8.toml", "--json")
    answer = json.loads(result.stdout)
    assert [network["precision"] for network in answer["results"]] == ["int8"]
    assert "in other precisions are not timed: give their devices with --device as well: fake (fp32)" in result.stderr


@pytest.mark.slow
def test_people_see_what_was_timed_and_what_no_device_can_keep(front: Path, folder: Path) -> None:
    people = invoke("query", front, "--latency", "1s", "--verify", "--device", folder / "fake-int8.toml", "--device", "fake")
    assert "of the budget" in people.stdout
    assert "Nothing was written: add --update" in people.stdout
    none = invoke("query", front, "--latency", "1us", "--verify", "--device", "fake", "--device", folder / "fake-int8.toml")
    assert (none.exit_code, len(none.stderr.splitlines()[-1:])) == (1, 1)
    assert "none takes at most 1us" in none.stderr


def test_a_bundle_has_the_file_that_its_promise_is_of(front: Path, folder: Path) -> None:
    asked = ("--front", front, "--latency", "900ms", "--epochs", 0, "--most-loss", 1)
    report = ofa("specialize", folder / "run", *asked, "-o", folder / "bundle")
    card = load_bundle(folder / "bundle").card
    assert (card.device, report["conditions"]["precision"]) == ("fake-int8", "int8")
    assert report["precisions"] == card.precisions
    assert {"network-int8.onnx", "photo-int8.onnx"} <= card.files.keys()
    assert ofa("verify", folder / "bundle", "--device", folder / "fake-int8.toml")["file_bytes"] == card.precisions["int8"]["file_bytes"]
    people = invoke("specialize", folder / "run", "--front", front, "--latency", "0.5ms", "--epochs", 0, "-o", folder / "float")
    assert load_bundle(folder / "float").card.device == "fake"
    assert "in int8" not in people.stdout
    assert not (folder / "float" / "network-int8.onnx").exists()
    assert invoke("report", front, "-o", folder / "front.html").exit_code == 0
    assert '"precisions":["' in (folder / "front.html").read_text(encoding="utf-8").replace(" ", "")


@pytest.mark.slow
def test_a_bundle_gets_the_precision_that_is_asked_for_or_says_why_not(front: Path, folder: Path) -> None:
    asked = ("--front", front, "--latency", "900ms", "--epochs", 0)
    half = invoke("specialize", folder / "run", *asked, "--precision", "fp16", "-o", folder / "half")
    assert half.exit_code == 0
    assert load_bundle(folder / "half").card.files.keys() & {"network-fp16.onnx", "network-int8.onnx"} == {"network-fp16.onnx"}
    refused = invoke("specialize", folder / "run", *asked, "--most-loss", 0, "-o", folder / "refused", "--precision", "int8")
    if refused.exit_code:  # this network may lose nothing
        assert "was written in fp32" in refused.stderr
        assert load_bundle(folder / "refused").card.precisions == {}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--table", "{folder}/cpu", "--table", "{folder}/int8"), 1, "ofa predictor quantization RUN --precision int8"),
        (("--table", "{folder}/cpu", "--losses", "{folder}/losses"), 1, "need a table of a device in int8, but the tables are in fp32"),
        (("--table", "{folder}/cpu", "--table", "{folder}/int8", "--losses", "{folder}/cpu"), 1, "must be a quantization loss"),
        (
            ("--table", "{folder}/cpu", "--table", "{folder}/int8", "--table", "{folder}/other", "--losses", "{folder}/losses"),
            1,
            "must have a table in each of",
        ),
        (("--table", "{folder}/cpu", "--device", "{folder}/fake-int8.toml", "--losses", "{folder}/losses"), 1, "build its table with"),
    ],
)
def test_a_search_that_lacks_something_says_what(folder: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    given = [part.format(folder=folder) for part in arguments]
    result = invoke("search", "--predictor", folder / "predictor", *given, "--trials", 16, "--evaluations", 300, "-o", folder / "none")
    assert result.exit_code == status
    assert words in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "fake", "--device", "fake"), "one device for each"),
        (("--device", "fake", "--table", "{folder}/int8", "--table", "{folder}/cpu"), "that of fake-int8 has no --device"),
        ((), "the front has fake-int8, fake"),
    ],
)
def test_devices_of_a_verification_must_fit_the_front(front: Path, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke("query", front, "--latency", "1s", "--verify", *(part.format(folder=folder) for part in arguments))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_losses_are_measured_on_a_run_and_lead_a_search(folder: Path) -> None:
    report = ofa("predictor", "quantization", folder / "run", "-n", 10, "-o", folder / "measured")
    assert (report["precision"], report["networks"], report["fitted_images"]) == ("int8", 10, 128)
    assert report["least_loss"] <= report["mean_loss"] <= report["largest_loss"]
    assert 0 <= report["coverage"] <= 1
    ended = invoke("predictor", "quantization", folder / "run", "-n", 10, "-o", folder / "measured", "--resume")
    assert "nothing is left to do" in ended.stderr
    assert "points on average" in ended.stdout
    tables = ("--table", folder / "cpu", "--table", folder / "int8", "--losses", folder / "measured")
    found = ofa("search", "--predictor", folder / "predictor", *tables, "--trials", 16, "--evaluations", 500, "-o", folder / "of-measured")
    assert Front.load(folder / "of-measured").info.accuracy["losses"]["int8"]["networks"] == 10
    assert found["networks"] > 1
