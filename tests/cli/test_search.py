"""``ofa predictor``, ``ofa search``, ``ofa query`` and ``ofa verify``: from a run to a network whose promise is checked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from devices import Conditions, Timing, describe, get_device
from latency_tables import Correction, LatencyTable, blocks_of_space
from latency_tables.info import TableInfo
from latency_tables.table import row_of, rows_frame
from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.cli.budgets import parse_latency_ms
from ofa.cli.search import _EVALUATIONS, _TRIALS
from ofa.exporting.bundle import load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.families import get_space, lower
from ofa.files import write_json
from ofa.training import demo_recipe, save_run
from search.budget import Budget
from search.front.front import Front
from search.study import Effort
from tests.commands import command_line

SPACE = get_space("ofa-mbv3-tiny")


def invoke(*arguments: object) -> Any:
    return command_line(*arguments)


def ofa(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def timing(ms: float) -> Timing:
    return Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("road")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """An untrained supernet: its networks guess, each differently."""
    recipe = demo_recipe()
    save_run(folder / "run", recipe.build_supernet(10), recipe, ())
    return folder / "run"


@pytest.fixture(scope="module")
def table(folder: Path) -> Path:
    """Every block takes a part of a millisecond and a part for its MACs; whole networks keep within 10 %."""
    rows = []
    for placed in blocks_of_space(SPACE):
        ms = 0.01 + placed.block.macs(placed.input) / 1e6
        rows.append(row_of(placed, timing(ms), batch=1, precision="fp32"))
    correction = Correction(intercept_ms=0.1, slope=1.0, half_width=0.1, coverage=0.9, nets=20)
    info = TableInfo.of_origin(describe(get_device("fake"))).with_space(SPACE, SPACE.resolutions)
    LatencyTable(rows_frame(rows), replace(info, calibration=correction)).save(folder / "table.parquet")
    return folder / "table.parquet"


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Path:
    """Fitted to a file of results: the larger, the better."""
    archs = [
        SPACE.uniform(resolution=r, depth=d, genes={"kernel": k, "expand": e})
        for r in (0, 1, 2)
        for d in (0, 1)
        for k in (0, 1)
        for e in (0, 1, 2)
    ]
    sizes = [sum(placed.block.macs(placed.input) for placed in lower(SPACE, arch)) for arch in archs]
    results = pd.DataFrame({"arch": [json.dumps(arch.to_json()) for arch in archs], "accuracy": [0.9 - 1e5 / size for size in sizes]})
    results.to_csv(folder / "results.csv", index=False)
    report = ofa("predictor", "fit", folder / "results.csv", "-o", folder / "predictor.parquet")
    assert (report["space"], report["networks"]) == (SPACE.name, len(archs))
    assert report["kendall_tau"] > 0.8
    return folder / "predictor.parquet"


@pytest.fixture(scope="module")
def front(folder: Path, predictor: Path, table: Path) -> Path:
    output = folder / "front.parquet"
    arguments = ("--trials", 48, "--evaluations", 3000, "--picture", folder / "front.png", "-o", output)
    report = ofa("search", "--space", SPACE.name, "--predictor", predictor, "--table", table, *arguments)
    assert report["devices"] == ["fake"]
    assert report["conditions"]["fake"]["pause_ms"] == 0.0
    assert report["study"]["trials"] == 48
    assert report["cheapest"]["latency_ms"] < report["most_accurate"]["latency_ms"]
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    return output


def test_a_predictor_is_fitted_to_a_run(run: Path, folder: Path) -> None:
    report = ofa("predictor", "fit", run, "--nets", 10, "-o", folder / "from-run.parquet")
    assert (report["space"], report["networks"]) == (SPACE.name, 10)
    assert 0 <= report["least_accuracy"] < report["greatest_accuracy"] <= 1


def test_a_search_can_measure_networks_of_a_run(run: Path, table: Path, folder: Path) -> None:
    output = folder / "measured.parquet"
    report = ofa("search", "--supernet", run, "--table", table, "--trials", 6, "--resolutions", "16", "-o", output)
    assert report["study"]["evaluated"] <= 6
    assert Front.load(output).info.accuracy["source"] == "measured"
    assert {json.loads(arch)["resolution"] for arch in Front.load(output).networks["arch"]} == {16}


def test_a_budget_given_to_the_search_is_kept_by_all(predictor: Path, table: Path, folder: Path) -> None:
    output = folder / "bound.parquet"
    report = ofa("search", "--predictor", predictor, "--table", table, "--trials", 32, "--evaluations", 2000, "--macs", "1M", "-o", output)
    assert report["most_accurate"]["macs"] <= 1_000_000
    assert Front.load(output).networks["macs"].max() <= 1_000_000


def test_a_query_is_answered_best_first(front: Path, folder: Path) -> None:
    answer = ofa("query", front, "--latency", "1ms", "--params", "1M", "--top", 3, "-o", folder / "arch.json")
    assert set(answer) == {"device", "devices", "budget", "conditions", "accuracy_source", "metric", "results", "not_searched", "warnings"}
    assert answer["accuracy_source"] == "predicted"
    assert answer["not_searched"] == ["params"]
    assert (answer["device"], answer["budget"]) == ("fake", {"latency_ms": 1.0, "params": 1_000_000})
    assert len(answer["results"]) == 3
    assert all(network["latency_high_ms"] <= 1.0 for network in answer["results"])
    accuracies = [network["accuracy"] for network in answer["results"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert Arch.load(folder / "arch.json") == Arch.from_json(answer["results"][0]["arch"])
    looser = ofa("query", front, "--latency", "1ms", "--expected")
    assert looser["results"][0]["accuracy"] >= accuracies[0]


def test_an_impossible_budget_fails_with_the_least_that_can_be(front: Path) -> None:
    result = invoke("query", front, "--latency", "1us", "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert answer["results"] == []
    stated = result.stderr.partition("the least achievable is latency ")[2].partition(";")[0]
    assert parse_latency_ms(stated) >= answer["least"]["latency_ms"]
    assert invoke("query", front, "--latency", stated).exit_code == 0
    silent = invoke("query", front, "--latency", "1us")
    assert (silent.exit_code, silent.stdout, len(silent.stderr.splitlines())) == (1, "", 1)


def test_people_see_tables(front: Path) -> None:
    result = invoke("query", front, "--latency", "1ms", "--top", 2)
    assert result.exit_code == 0
    assert "2 best on fake" in result.stdout
    assert "Latency on fake: batch 1, fp32, 1 thread, calls in a row, fake 1." in " ".join(result.stdout.split())
    assert " .. " in result.stdout


@pytest.fixture(scope="module")
def bundle(folder: Path, front: Path) -> Path:
    (best,) = Front.load(front).query(Budget({"latency_ms": 1.0}))
    network = build_network(lower(SPACE, best.arch), generator=torch.Generator().manual_seed(0)).eval()
    card = Card(device="fake", **vars(best.latencies["fake"]))
    look = {"class_names": list("0123456789"), "mean": (0.5,) * 3, "std": (0.5,) * 3, "generator": torch.Generator().manual_seed(0)}
    write_bundle(folder / "bundle", network, best.arch, card, **look)
    return folder / "bundle"


def test_a_bundle_is_verified(bundle: Path) -> None:
    report = ofa("verify", bundle, "--device", "fake", "--latency", "1s")
    assert report["difference"] < 1e-4
    assert report["within_budget"] is True
    assert report["error"] == pytest.approx(report["measured_ms"] / report["latency_ms"] - 1)
    table = invoke("verify", bundle, "--device", "fake").stdout
    assert "promised" in table
    assert "measured" in table
    words = " ".join(table.replace("│", " ").split())
    assert "1 x 3 x" in words
    assert "1 thread, calls in a row, fake 1" in words
    assert load_bundle(bundle).card.measured_conditions == report["conditions"]


def test_a_promise_of_other_settings_is_not_compared_and_that_is_said(bundle: Path, folder: Path) -> None:
    pausing, copy = folder / "fake.toml", folder / "of-calls-in-a-row"
    pausing.write_text('name = "fake"\nruntime = "fake"\npause_ms = 1\n')
    shutil.copytree(bundle, copy)
    promised = Conditions.of(get_device("fake"), runtime_version="1")
    write_json(replace(load_bundle(copy).card, conditions=promised.to_json()).to_json(), copy / "card.json")
    result = invoke("verify", copy, "--device", pausing, "--overwrite", "--json")
    report = json.loads(result.stdout)
    assert (report["latency_ms"], report["error"], report["promised_under"]["pause_ms"]) == (None, None, 0.0)
    assert report["conditions"]["pause_ms"] == 1.0
    assert "is not compared: it is of batch 1, fp32, 1 thread, calls in a row, fake 1" in " ".join(result.stderr.split())
    assert load_bundle(copy).card.measured_conditions["pause_ms"] == 1.0


def test_a_front_answers_what_to_specialize_and_the_card_keeps_promise_and_measurement(run: Path, front: Path, folder: Path) -> None:
    made = folder / "specialized"
    report = ofa("specialize", run, "--front", front, "--latency", "1ms", "--epochs", 0, "-o", made)
    (best,) = Front.load(front).query(Budget({"latency_ms": 1.0}))
    assert report["arch"] == best.arch.to_json()
    card = load_bundle(made).card
    assert (card.device, card.latency_ms, card.measured_ms) == ("fake", best.latencies["fake"].latency_ms, None)
    assert card.conditions == report["conditions"] == Conditions.of(get_device("fake"), runtime_version="1").to_json()
    found = ofa("verify", made, "--device", "fake")
    assert load_bundle(made).card.measured_ms == found["measured_ms"]


def test_a_network_comes_from_an_arch_or_a_front(run: Path, front: Path, folder: Path) -> None:
    for arguments in ((), ("--front", front, "--arch", folder / "arch.json"), ("--arch", folder / "arch.json", "--latency", "1ms")):
        result = invoke("specialize", run, "-o", folder / "none", *arguments)
        assert result.exit_code == 2, result.stderr
    assert not (folder / "none").exists()


def test_mits_predictor_can_lead_a_search(folder: Path) -> None:
    space = get_space("ofa-mbv3-w1.2")
    generator = torch.Generator().manual_seed(0)
    sizes = [128, 400, 400, 400, 1]
    layers = {f"{2 * i}.weight": torch.rand(o, n, generator=generator) / n for i, (n, o) in enumerate(pairwise(sizes))}
    torch.save(layers | {f"{2 * i}.bias": torch.zeros(o) for i, o in enumerate(sizes[1:])}, folder / "acc_predictor.pth")
    ofa("import", "mit-predictor", folder / "acc_predictor.pth", "--space", space.name, "-o", folder / "mit.safetensors")
    table_path = folder / "mit-table.parquet"
    rows = [row_of(placed, timing(0.1), batch=1, precision="fp32") for placed in blocks_of_space(space, [224])]
    info = TableInfo.of_origin(describe(get_device("fake"))).with_space(space, [224])
    LatencyTable(rows_frame(rows), info).save(table_path)
    road = ("--predictor", folder / "mit.safetensors", "--table", table_path, "--trials", 16, "--evaluations", 500)
    report = ofa("search", *road, "-o", folder / "mit-front.parquet")
    assert report["space"] == space.name
    assert Front.load(folder / "mit-front.parquet").info.resolutions == (224,)
    found = ofa("search", *road[:2], "--resolutions", "160,224", *road[4:], "--best", "--macs", "200M..210M", "-o", folder / "macs.parquet")
    assert (found["devices"], found["networks"]) == ([], 1)
    assert 200e6 <= found["most_accurate"]["macs"] <= 210e6


@pytest.fixture(scope="module")
def two(folder: Path, predictor: Path, table: Path) -> Path:
    """A front of two devices; on the second, blocks take twice as long, and there is no interval."""
    loaded = LatencyTable.load(table)
    rows = loaded.rows.assign(median_ms=2 * loaded.rows["median_ms"])
    device = {**loaded.info.device, "name": "slow"}
    LatencyTable(rows, replace(loaded.info, device=device, calibration=None)).save(folder / "slow.parquet")
    tables = ("--table", table, "--table", folder / "slow.parquet")
    costs = ("--trade", "latency", "--trade", "weights", "--trials", 32, "--evaluations", 3000)
    report = ofa("search", "--predictor", predictor, *tables, *costs, "-o", folder / "two.parquet")
    assert report["devices"] == ["fake", "slow"]
    assert report["objectives"] == ["latency_high_ms@fake", "latency_high_ms@slow", "weight_bytes"]
    return folder / "two.parquet"


def test_budgets_of_two_devices_are_kept_at_once(two: Path) -> None:
    answer = ofa("query", two, "--latency", "fake=0.9ms", "--latency", "slow=1.2ms", "--weights", "200KiB", "--top", 2)
    assert answer["not_searched"] == []
    for network in answer["results"]:
        assert network["devices"]["fake"]["latency_high_ms"] <= 0.9
        assert network["devices"]["slow"]["latency_high_ms"] <= 1.2
        assert network["weight_bytes"] <= 200 * 1024
        assert network["latency_ms"] == network["devices"]["fake"]["latency_ms"]
    people = invoke("query", two, "--latency", "fake=0.9ms").stdout
    assert "latency on slow" in people


def test_a_range_has_two_ends(two: Path) -> None:
    (best,) = ofa("query", two, "--macs", "1M..1.5M", "--accuracy", "50%..")["results"]
    assert 1e6 <= best["macs"] <= 1.5e6
    assert best["accuracy"] >= 0.5


def test_networks_can_be_timed_instead_of_looked_up(run: Path, folder: Path) -> None:
    arguments = ("--device", "fake", "--trials", 3, "--resolutions", "16", "-o", folder / "timed.parquet")
    report = ofa("search", "--supernet", run, *arguments)
    front = Front.load(folder / "timed.parquet")
    assert report["study"]["evaluated"] <= 3
    assert front.info.latency["fake"].source == "measured"
    assert front.info.command.startswith("ofa")


def test_an_impossible_search_says_so_at_once(predictor: Path, table: Path, folder: Path) -> None:
    result = invoke("search", "--predictor", predictor, "--table", table, "--latency", "1us", "-o", folder / "none.parquet")
    assert result.exit_code == 1
    assert "none in the space has latency (the upper end of its interval) <= 1us" in result.stderr
    assert "least achievable is latency " in result.stderr
    assert not (folder / "none.parquet").exists()


def test_a_query_can_be_verified_on_the_device(front: Path, table: Path, folder: Path) -> None:
    copy, own = folder / "verified.parquet", folder / "own-table.parquet"
    copy.write_bytes(front.read_bytes())
    own.write_bytes(table.read_bytes())
    asked = ("query", copy, "--latency", "1s", "--verify", "--device", "fake", "--table", own, "--top", 2)
    assert ofa(*asked)["updated"] == []
    assert (copy.read_bytes(), own.read_bytes()) == (front.read_bytes(), table.read_bytes())
    answer = ofa(*asked, "--update")
    assert answer["updated"] == [*[str(own)] * answer["learned"], str(copy)]
    assert len(answer["results"]) == 2
    assert answer["conditions"]["fake"] == Conditions.of(get_device("fake"), runtime_version="1").to_json()
    for network in answer["results"]:
        assert network["measured_ms"] <= 1000
        assert network["budget_used"] <= 1
    assert len(Front.load(copy).info.verified) >= 2
    people = invoke("query", copy, "--latency", "1s", "--verify", "--device", "fake")
    assert "of the budget" in people.stdout
    assert "Nothing was written: add --update" in people.stdout
    result = invoke("query", copy, "--latency", "1us", "--verify", "--device", "fake", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["results"] == []


def test_the_command_line_searches_as_much_as_the_library() -> None:
    assert Effort(trials=_TRIALS, evaluations=_EVALUATIONS) == Effort()


def test_a_missed_budget_fails_after_the_numbers(bundle: Path) -> None:
    result = invoke("verify", bundle, "--device", "fake", "--latency", "1us", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["within_budget"] is False
    assert "must take at most" in result.stderr


_SEARCH = ["--predictor", "{predictor}", "--table", "{table}", "-o", "{folder}/f"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["query", "{front}", "--latency", "12"], 2, "write for example 12ms"),
        (["query", "{folder}/absent.parquet"], 1, "must be a readable front"),
        (["query", "{predictor}"], 1, "must be a front, but is a predictor"),
        (["query", "{two}", "--latency", "12ms"], 1, "name one of fake, slow, such as fake=12ms"),
        (["query", "{two}", "--latency", "pi=12ms"], 1, "it knows fake, slow"),
        (["query", "{two}", "--latency", "fake=2ms", "--latency", "fake=1ms"], 2, "must have one limit"),
        (["query", "{front}", "--latency", "3ms..2ms"], 2, "swap its ends"),
        (["query", "{front}", "--latency", "-3ms"], 2, "positive number with a unit"),
        (["query", "{two}", "--latency", "fake=9ms", "--verify"], 2, "the front has fake, slow"),
        (["query", "{front}", "--latency", "9ms", "--verify", "--device", "local-cpu"], 1, "it knows fake and not local-cpu"),
        (["query", "{front}", "--latency", "9ms", "--device", "fake"], 2, "belong to --verify"),
        (["query", "{front}", "--accuracy", "0.7"], 2, "write for example 76%"),
        (["query", "{front}", "--energy", "3mJ"], 1, "energy on fake is not among"),
        (["search", "--trade", "speed", *_SEARCH], 2, "cannot be traded"),
        (["search", "--trade", "macs", "--best", *_SEARCH], 2, "leave out one of the two"),
        (["search", "--table", "{table}", *_SEARCH], 1, "each device must come once"),
        (["search", "--table", "{table}", "-o", "{folder}/f"], 2, "one of --predictor and --supernet"),
        (["search", "--table", "{table}", "--predictor", "{predictor}", "-o", "{folder}/absent/f"], 1, "create it"),
        (["search", "--sampler", "nsga4", *_SEARCH], 1, "did you mean 'nsga"),
        (["search", "--space", "ofa-resnet50-tiny", *_SEARCH], 1, "is asked for"),
        (["search", "--space", "ofa-resnet50-tiny", "--supernet", "{run}", *_SEARCH[2:]], 1, "must be of the space it is used for"),
        (["search", "--table", "{predictor}", "--predictor", "{predictor}", "-o", "{folder}/f"], 1, "latency table"),
        (["predictor", "fit", "{folder}/absent", "-o", "{folder}/p"], 1, "a run must have"),
        (["verify", "{folder}", "--device", "fake"], 1, "must be a bundle"),
        (["verify", "{bundle}", "--device", "fakes"], 1, "did you mean 'fake'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(
    arguments: list[str],
    status: int,
    words: str,
    folder: Path,
    run: Path,
    table: Path,
    predictor: Path,
    front: Path,
    two: Path,
    bundle: Path,
) -> None:
    places = {"folder": folder, "run": run, "table": table, "predictor": predictor, "front": front, "two": two, "bundle": bundle}
    result = invoke(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == status, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert not (folder / "f").exists()
