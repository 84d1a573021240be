"""``ofa predictor fit``: from results, and from a run in rounds, to a predictor that says how good it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ofa.cli.predictor import fit_predictor
from ofa.families import get_space
from ofa.training import demo_recipe, save_run
from search.predictor import active_learning
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.sampling import sample_stratified
from tests.commands import command_line
from tests.search.fakes import SPACE, FakeAccuracy


def invoke(*arguments: object) -> Any:
    return command_line("predictor", "fit", *arguments)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    archs = sample_stratified(SPACE, 40, np.random.default_rng(0))
    rows = {"arch": [json.dumps(arch.to_json()) for arch in archs], "accuracy": FakeAccuracy(noise=0.002)(archs)}
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    return tmp_path / "results.csv"


def test_it_states_how_good_it_is(results: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.parquet"
    reply = invoke(results, "-o", output, "--json")
    assert reply.exit_code == 0, reply.stderr
    report = json.loads(reply.stdout)
    trust = AccuracyPredictor.load(output).trust
    assert report["networks"] == 40
    for name in ("kendall_tau", "rmse", "coverage", "half_width"):
        assert report[name] == getattr(trust, name)
    words = " ".join(invoke(results, "-o", output, "--overwrite").stdout.split())
    for part in ("ofa-mbv3-tiny, 16 to 32 px", "2 Gaussian processes", f"{trust.kendall_tau:.3f}", f"{100 * trust.rmse:.3f} points"):
        assert part in words
    assert f"cover {100 * trust.coverage:.0f} % of unseen networks, ± {100 * trust.half_width:.3f} points on average" in words


def test_a_run_is_measured_in_rounds(tmp_path: Path) -> None:
    recipe = demo_recipe()
    save_run(tmp_path / "run", recipe.build_supernet(10), recipe, ())
    reply = invoke(tmp_path / "run", "--nets", 14, "--rounds", 1, "-o", tmp_path / "p.parquet", "--json")
    assert reply.exit_code == 0, reply.stderr
    report = json.loads(reply.stdout)
    assert (report["networks"], report["fair_sample"]["networks"]) == (14, 10)
    assert 0 <= report["least_accuracy"] < report["greatest_accuracy"] <= 1


def test_published_results_need_their_space(tmp_path: Path) -> None:
    space, rng = get_space("ofa-mbv3-w1.0"), np.random.default_rng(0)
    rows = []
    for arch in (space.sample(rng) for _ in range(12)):
        blocks = [[*stage, *[stage[-1]] * (4 - len(stage))] for stage in arch.stages]
        parts = {f"{name}s": "-".join(str(block[name]) for stage in blocks for block in stage) for name in ("kernel", "expand")}
        depths = "-".join(str(len(stage)) for stage in arch.stages)
        rows.append({"resolution": arch.resolution, "depths": depths, **parts, "top1_percent": 70 + rng.random()})
    pd.DataFrame(rows).to_csv(tmp_path / "published.csv", index=False)
    reply = invoke(tmp_path / "published.csv", "-o", tmp_path / "p.parquet")
    assert reply.exit_code == 1
    assert "add --space NAME" in " ".join(reply.stderr.split())
    assert not (tmp_path / "p.parquet").exists()
    report = fit_predictor(tmp_path / "published.csv", tmp_path / "p.parquet", nets=100, classes=None, seed=0, space="ofa-mbv3-w1.0")
    assert (report["space"], report["networks"]) == ("ofa-mbv3-w1.0", 12)


def test_classes_of_results_can_be_told(results: Path, tmp_path: Path) -> None:
    fit_predictor(results, tmp_path / "p.parquet", nets=100, classes=7, seed=0)
    assert AccuracyPredictor.load(tmp_path / "p.parquet").space.num_classes == 7


def test_the_command_has_as_many_rounds_as_the_library() -> None:
    from ofa.cli import predictor

    assert predictor._ROUNDS == active_learning.ROUNDS


def test_a_supernet_that_guesses_is_warned_of_and_so_is_what_follows_from_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    archs = sample_stratified(SPACE, 16, rng)
    rows = {"arch": [json.dumps(arch.to_json()) for arch in archs], "accuracy": 0.1 + 0.01 * rng.random(16)}
    pd.DataFrame(rows).to_csv(tmp_path / "guesses.csv", index=False)
    reply = invoke(tmp_path / "guesses.csv", "-o", tmp_path / "p", "--json")
    assert reply.exit_code == 0, reply.stderr
    said = json.loads(reply.stdout)["warnings"]
    assert any("no better than guessing among 10 classes" in sentence for sentence in said)
    assert any("fitted to 16 networks" in sentence for sentence in said)
    assert reply.stderr.splitlines() == [f"ofa: warning: {sentence}" for sentence in said]
    search = ("search", "--predictor", tmp_path / "p", "--trials", 16, "--evaluations", 200, "-o", tmp_path / "f", "--json")
    found = command_line(*search)
    assert set(said[1:]) <= set(json.loads(found.stdout)["warnings"])
    asked = command_line("query", tmp_path / "f", "--json")
    assert set(said[1:]) <= set(json.loads(asked.stdout)["warnings"])
    assert asked.stderr.count("ofa: warning: ") == len(json.loads(asked.stdout)["warnings"])
