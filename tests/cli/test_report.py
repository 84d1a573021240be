"""``ofa report``: pages and pictures of fronts, tables and runs, and what is said of anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.commands import command_line
from tests.resealed import write_parquet
from tests.search.fronts import make_front
from tests.search.test_report import TABLE, make_run


def invoke(*arguments: object) -> Any:
    return command_line("report", *arguments)


@pytest.fixture
def front(tmp_path: Path) -> Path:
    make_front(networks=200).save(tmp_path / "digits.front")
    return tmp_path / "digits.front"


def test_a_front_becomes_a_page_and_pictures(front: Path, tmp_path: Path) -> None:
    result = invoke(front, "-o", tmp_path / "report.html", "--png", tmp_path / "pictures", "--title", "Ours & theirs", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["report"] == str(tmp_path / "report.html")
    assert answer["bytes"] == (tmp_path / "report.html").stat().st_size
    assert {str(path) for path in (tmp_path / "pictures").iterdir()} == set(answer["pictures"])
    assert "<title>Ours &amp; theirs</title>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_table_and_a_run_become_pages(tmp_path: Path) -> None:
    for source in (TABLE, make_run(tmp_path / "run")):
        result = invoke(source, "-o", tmp_path / "report.html", "--overwrite")
        assert result.exit_code == 0, result.stderr
        assert "open it in any browser" in result.stdout
        assert ("calls in a row" in " ".join(result.stdout.replace("│", " ").split())) == (source == TABLE)
        assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def change_metadata(path: Path, **changes: object) -> None:
    table = pq.read_table(path)
    write_parquet(table, path, **changes)


def test_what_cannot_be_shown_is_said_in_one_sentence(front: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"

    def failed(*arguments: object) -> str:
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
        return str(result.stderr)

    assert "check the path" in failed(tmp_path / "absent", "-o", page)
    assert "lacks config.toml" in failed(tmp_path, "-o", page)
    assert "must be in a folder that exists" in failed(front, "-o", tmp_path / "absent" / "report.html")
    assert "must be in a folder that exists" in failed(front, "-o", page, "--png", tmp_path / "absent" / "folder")
    change_metadata(front, kind="predictor")
    assert "must be a front, but is a predictor" in failed(front, "-o", page)
    change_metadata(front, kind="front", schema=99)
    assert "must have schema 4 or older, but has 99" in failed(front, "-o", page)
    front.write_text("words")
    assert "no complete Parquet file" in failed(front, "-o", page)
    assert not page.exists()


def test_a_page_needs_a_place(front: Path) -> None:
    assert invoke(front).exit_code == 2
