from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devices import describe, get_device
from devices.timing import Timing
from latency_tables import Correction, Estimator, LatencyTable, blocks_of_space
from latency_tables.info import TableInfo
from latency_tables.table import row_of, rows_frame
from ofa.costs import costs
from ofa.families import get_space, lower, space_names
from search.budget import Budget
from search.front.build import check_possible
from search.front.infeasible import ImpossibleBudgetError
from search.problem import Problem
from tests.commands import command_line
from tests.search.fakes import FakeAccuracy


def ofa(*arguments: str, status: int = 0) -> Any:
    result = command_line("space", *arguments, "--json")
    assert result.exit_code == status, result.stderr
    return json.loads(result.stdout)


def test_all_spaces_are_listed_with_their_sizes() -> None:
    rows = ofa()
    assert [row["space"] for row in rows] == list(space_names())
    assert all(row["size"] == get_space(row["space"]).size for row in rows)
    assert all(row["smallest_macs"] < row["largest_macs"] for row in rows)


def test_costs_lie_between_the_smallest_and_the_largest_network() -> None:
    report = ofa("ofa-mbv3-tiny", "--samples", "20")
    space = get_space("ofa-mbv3-tiny")
    assert report["size"] == space.size
    assert report["budget"] is None
    for name, least in costs(lower(space, space.smallest())).items():
        summary = report["costs"][name]
        assert least == summary["smallest"] <= summary["min"] <= summary["median"] <= summary["max"] <= summary["largest"]


def test_the_seed_decides_the_sample() -> None:
    first, again, other = (ofa("ofa-mbv3-tiny", "--samples", "5", "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again
    assert first["costs"] != other["costs"]


def test_a_resolution_narrows_the_space() -> None:
    space = get_space("ofa-mbv3-tiny")
    resolution = space.resolutions[0]
    report = ofa("ofa-mbv3-tiny", "--samples", "3", "--resolution", str(resolution))
    assert report["size"] * len(space.resolutions) == space.size
    assert report["resolutions"] == [resolution]
    assert report["costs"]["macs"]["largest"] == costs(lower(space, space.largest(resolution)))["macs"]


def test_a_generous_budget_is_kept_by_all_and_a_tiny_one_by_none() -> None:
    generous = ofa("ofa-mbv3-tiny", "--samples", "5", "--macs", "100G", "--params", "1G")["budget"]
    assert (generous["satisfiable"], generous["share"], generous["least"]) == (True, 1.0, {})
    report = ofa("ofa-mbv3-tiny", "--samples", "5", "--macs", "100G", "--memory", "1B", status=1)
    budget = report["budget"]
    assert (budget["satisfiable"], budget["share"]) == (False, 0.0)
    assert budget["shares"] == {"macs": 1.0, "peak_activation_bytes": 0.0}
    assert budget["least"] == {"peak_activation_bytes": report["costs"]["peak_activation_bytes"]["smallest"]}


def test_a_budget_that_only_the_smallest_network_keeps_is_satisfiable() -> None:
    smallest = get_space("ofa-mbv3-tiny").smallest()
    least = costs(lower(get_space("ofa-mbv3-tiny"), smallest))["weight_bytes"]
    budget = ofa("ofa-mbv3-tiny", "--samples", "3", "--weights", f"{least}B")["budget"]
    assert budget["satisfiable"] is True


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of the middle resolution in which every block takes 1 ms."""
    space = get_space("ofa-mbv3-tiny")
    resolution = space.resolutions[1]
    timing = Timing(median_ms=1.0, p90_ms=1.0, min_ms=1.0, std_ms=0.0, repeats=3)
    rows = [row_of(placed, timing, batch=1, precision="fp32") for placed in blocks_of_space(space, [resolution])]
    info = TableInfo.of_origin(describe(get_device("fake"))).with_space(space, [resolution])
    LatencyTable(rows_frame(rows), info).save(tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def test_a_table_adds_latency_at_its_resolutions(table: Path) -> None:
    space = get_space("ofa-mbv3-tiny")
    report = ofa("ofa-mbv3-tiny", "--samples", "4", "--table", str(table), "--latency", "1ms", status=1)
    assert report["resolutions"] == [space.resolutions[1]]
    blocks = {name: len(lower(space, arch)) for name, arch in (("smallest", space.smallest()), ("largest", space.largest()))}
    summary = report["costs"]["latency_ms"]
    assert (summary["smallest"], summary["largest"]) == (blocks["smallest"], blocks["largest"])
    assert report["budget"]["least"] == {"latency_ms": blocks["smallest"]}
    assert report["conditions"] == LatencyTable.load(table).conditions.to_json()
    people = command_line("space", "ofa-mbv3-tiny", "--samples", "4", "--table", table)
    assert "1 thread, calls in a row" in " ".join(people.stdout.split())


def test_a_calibrated_table_is_held_to_the_upper_end_of_its_interval(table: Path) -> None:
    calibration = Correction(intercept_ms=0.0, slope=1.0, half_width=0.5, coverage=0.9, nets=20, residuals=())
    LatencyTable.load(table).with_info(calibration=calibration).save(table)
    report = ofa("ofa-mbv3-tiny", "--samples", "4", "--table", str(table), "--latency", "1ms", status=1)
    assert (
        report["budget"]["least"]["latency_ms"]
        == report["costs"]["latency_high_ms"]["smallest"]
        > report["costs"]["latency_ms"]["smallest"]
    )


def test_a_damaged_table_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_text("not a table", encoding="utf-8")
    result = command_line("space", "ofa-mbv3-tiny", "--table", tmp_path / "table.parquet", "--json")
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)


@pytest.fixture
def upside_down(tmp_path: Path) -> Path:
    """A table in which the blocks with the fewest MACs are the slowest, so that the smallest network is not the fastest."""
    space = get_space("ofa-mbv3-tiny")
    rows = []
    for placed in blocks_of_space(space, [24]):
        ms = 1.0 / (1 + costs([placed])["macs"] / 1e5)
        timing = Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=3)
        rows.append(row_of(placed, timing, batch=1, precision="fp32"))
    info = TableInfo.of_origin(describe(get_device("fake"))).with_space(space, [24])
    LatencyTable(rows_frame(rows), info).save(tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def test_space_and_search_name_the_same_least_latency(upside_down: Path) -> None:
    report = ofa("ofa-mbv3-tiny", "--samples", "4", "--table", str(upside_down), "--latency", "0.001ms", status=1)
    least = report["budget"]["least"]["latency_ms"]
    assert least < report["costs"]["latency_ms"]["smallest"]
    space = get_space("ofa-mbv3-tiny").restrict(resolution=[24])
    problem = Problem(
        space=space,
        accuracy=FakeAccuracy(),
        latencies=[Estimator(space, LatencyTable.load(upside_down))],
        budget=Budget({"latency_ms": 0.001}),
    )
    with pytest.raises(ImpossibleBudgetError) as refused:
        check_possible(problem)
    assert list(refused.value.binding.values()) == [pytest.approx(least)]
    assert ofa("ofa-mbv3-tiny", "--samples", "4", "--table", str(upside_down), "--latency", f"{1.0001 * least}ms")["budget"]["satisfiable"]


def test_limits_that_can_each_be_kept_and_perhaps_not_together_are_no_promise(upside_down: Path) -> None:
    arguments = ("ofa-mbv3-tiny", "--samples", "4", "--table", str(upside_down))
    refused = ofa(*arguments, "--latency", "0.001ms", "--macs", "0.001K", status=1)["budget"]["least"]
    limits = ("--latency", f"{1.0001 * refused['latency_ms']}ms", "--macs", f"{refused['macs'] / 1000}K")
    assert ofa(*arguments, *limits)["budget"]["satisfiable"] is None
    said = command_line("space", *arguments, *limits)
    assert "a search finds out whether one does" in " ".join(said.stdout.split())


def test_people_see_a_table_and_an_answer() -> None:
    result = command_line("space", "ofa-mbv3-tiny", "--samples", "3", "--memory", "1KiB")
    assert result.exit_code == 1
    assert "peak activations of at most 1KiB: 0.0 %" in result.stdout
    said = " ".join(result.stderr.split())
    assert "none of ofa-mbv3-tiny has peak activations of at most 1KiB: the least achievable is peak activations" in said
    least = said.partition("the least achievable is peak activations ")[2].partition(";")[0]
    met = command_line("space", "ofa-mbv3-tiny", "--samples", "3", "--memory", least)
    assert met.exit_code == 0
    assert "The budget can be met" in met.stdout


def test_a_budget_that_no_network_uses_is_said() -> None:
    (said,) = ofa("ofa-mbv3-tiny", "--samples", "3", "--macs", "100G")["warnings"]
    assert said.startswith("no network of the space uses the budget: the largest one has MACs ")
    assert "M of 100G; a larger space or resolution could use the rest" in said
    assert ofa("ofa-mbv3-tiny", "--samples", "3", "--macs", "1M")["warnings"] == []


def test_a_mistyped_space_is_one_sentence_with_the_nearest() -> None:
    result = command_line("space", "ofa-mbv3-tinny", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean 'ofa-mbv3-tiny'?" in result.stderr


@pytest.mark.parametrize("arguments", [["--macs", "300M"], ["--resolution", "224"], ["ofa-mbv3-tiny", "--latency", "12ms"]])
def test_options_that_lack_what_they_are_about_are_wrong_usage(arguments: list[str]) -> None:
    result = command_line("space", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
