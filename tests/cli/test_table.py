from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from latency_tables import LatencyTable, blocks_of_space
from ofa.families import get_space
from tests.commands import command_line

SPACE = "ofa-mbv3-tiny"
ON_FAKE = ("--space", SPACE, "--device", "fake")


def run(*arguments: object) -> Any:
    return command_line("table", *arguments)


def unwrapped(text: str) -> str:
    """The words of a table, whatever line they are on."""
    return " ".join(text.replace("│", " ").split())


def ofa(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "fake.parquet"
    assert ofa("build", *ON_FAKE, "-o", path, "--resolutions", "16,24")["measured"] > 0
    return path


@pytest.fixture
def table(built: Path, tmp_path: Path) -> Path:
    path = tmp_path / "table.parquet"
    path.write_bytes(built.read_bytes())
    return path


def test_the_road_from_blocks_to_a_checked_table(table: Path) -> None:
    calibrated = ofa("calibrate", table, *ON_FAKE, "--nets", 12)
    assert calibrated["calibration"]["nets"] == 12
    assert calibrated["calibrated_with"] == "1"
    report = ofa("check", table, *ON_FAKE, "--nets", 10)
    assert report["nets"] == len(report["networks"]) == 10
    assert report["mean_error"] < 0.03
    assert report["networks"][0]["arch"]["space"] == SPACE
    shown = ofa("show", table)
    assert shown["calibration"] == calibrated["calibration"]
    assert shown["spaces"] == {SPACE: [16, 24]}


def test_resuming_measures_what_is_missing(table: Path) -> None:
    before = ofa("show", table)["blocks"]
    report = ofa("build", *ON_FAKE, "-o", table, "--resume")
    assert report["blocks"] == len(blocks_of_space(get_space(SPACE))) == before + report["measured"]
    assert ofa("build", *ON_FAKE, "-o", table, "--resume")["measured"] == 0


def test_a_table_that_is_there_is_not_replaced(table: Path) -> None:
    before = table.read_bytes()
    result = run("build", *ON_FAKE, "-o", table)
    assert result.exit_code == 1
    assert "add --resume" in result.stderr
    assert table.read_bytes() == before


def test_a_check_without_calibration_knows_no_interval(table: Path) -> None:
    assert ofa("check", table, *ON_FAKE, "--nets", 3)["inside_interval"] is None


def test_rows_go_to_csv(table: Path, tmp_path: Path) -> None:
    ofa("show", table, "--csv", tmp_path / "rows.csv")
    assert len(pd.read_csv(tmp_path / "rows.csv")) == len(LatencyTable.load(table))


def test_people_get_tables(table: Path) -> None:
    for arguments in (("show", table), ("calibrate", table, *ON_FAKE, "--nets", 9), ("check", table, *ON_FAKE, "--nets", 3)):
        result = run(*arguments)
        assert result.exit_code == 0, result.stderr
        assert "fake" in result.stdout
        assert "batch 1, fp32, 1 thread, calls in a row, fake 1" in unwrapped(result.stdout)
        assert result.stderr.count("timed with") == 0


def test_a_runtime_that_is_another_by_now_is_said(table: Path) -> None:
    LatencyTable.load(table).with_info(runtime_version="0").save(table)
    result = run("check", table, *ON_FAKE, "--nets", 2, "--json")
    assert "blocks were timed with fake 0, and networks now with 1: latencies may have changed" in " ".join(result.stderr.split())
    assert json.loads(result.stdout)["conditions"]["runtime_version"] == "1"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("show", "none.parquet"), 1, "no such file"),
        (("build", *ON_FAKE, "-o", "no/folder/t.parquet"), 1, "folder that exists"),
        (("build", *ON_FAKE, "-o", "t.parquet", "--resolutions", "25"), 1, "[16, 24, 32]"),
        (("build", *ON_FAKE, "-o", "t.parquet", "--resolutions", "a"), 2, "24,32"),
        (("build", "--space", "ofa-mbv5", "--device", "fake", "-o", "t.parquet"), 1, "did you mean"),
        (("build", "--space", SPACE, "--device", "fakr", "-o", "t.parquet"), 1, "did you mean 'fake'"),
        (("build", "--space", SPACE), 2, "--device"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_devices_table_is_refused(table: Path) -> None:
    result = run("check", table, "--space", SPACE, "--device", "local-cpu")
    assert result.exit_code == 1
    assert "name the table's device" in result.stderr
