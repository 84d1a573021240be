"""docs/comparison.md: what it says was measured is what the pages say that have commands and raw files."""

from __future__ import annotations

import re

import pytest

from tests.sources import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "comparison.md").read_text(encoding="utf-8")
MEASURED = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("figures.md", "gpu.md", "adopting.md"))
TABLES = re.findall(r"\*\*Measured beside it[^\n]*.*?\n\n(\|.*?)\n\n", TEXT, re.DOTALL)
ROWS = [row for table in TABLES for row in table.splitlines()[2:]]
ROUNDED = {"82.71": "0.82706", "82.29": ".82291"}
"""Shares that other pages have with more digits."""


def test_rows_are_found() -> None:
    assert len(ROWS) == 11


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:30] or row.split("|")[2].strip())
def test_each_number_stands_where_its_command_and_raw_file_are(row: str) -> None:
    words = re.sub(r"`[^`]*`", "", row)
    numbers = re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)", words)
    assert numbers
    strange = [number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(ROUNDED.get(number, number))}(?!\d)", MEASURED)]
    assert strange == []


def test_named_files_are_there() -> None:
    named = re.findall(r"`((?:benchmarks/)?[\w/]+\.(?:py|json))`", TEXT)
    places = [ROOT / "benchmarks", ROOT / "benchmarks" / "results"]
    ours = [name for name in named if not name.startswith("modelopt/")]
    assert len(ours) > 10
    assert [name for name in ours if not any((place / name.removeprefix("benchmarks/")).exists() for place in [ROOT, *places])] == []
