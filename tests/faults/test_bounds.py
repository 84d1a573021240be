"""A hostile file is refused in at most two seconds and 300 MB above the idle process, whatever reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ofa.errors import FileError, OfaError, RecipeError, SpaceError
from ofa.exporting.engine_record import read_record
from ofa.families import get_space
from ofa.resolution import parse_resolution
from ofa.space import Space
from ofa.training import DataRecord, Recipe, demo_recipe
from tests.faults.bounds import MOST_BYTES, MOST_S
from tests.faults.damage import ROOT
from tests.faults.readers import READERS, make_files

LOADED = 3
"""How much longer a process may take on a machine that runs other tests."""

SLIPS = ("1" + "0" * 30, str(2**63), "1e30")
NUMBERS = ("batch_size", "workers", "checkpoint_steps", "evaluate_every", "evaluation_images", "seed", "phases.full.epochs")


def costs(folder: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """What each hostile file in place of those of some readers cost."""
    words = [sys.executable, "-W", "ignore", "-m", "tests.faults.bounds", str(make_files(folder)), *names]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    return [json.loads(line) for line in said.stdout.splitlines()]


@pytest.mark.torture
@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_refused_at_little_cost(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    found = costs(tmp_path, [name])
    record_property("figures", {"what": f"hostile files: {name}", "tried": len(found)})
    wrong = [
        each
        for each in found
        if not each["result"].startswith(("refused", "read")) or each["seconds"] > MOST_S * LOADED or each["bytes"] > MOST_BYTES
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("name", "read"), [("data.parquet", DataRecord.load), ("network.engine.json", lambda folder: read_record(folder / "network.engine"))]
)
def test_a_link_that_leads_nowhere_is_no_missing_file(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / name).symlink_to(name)
    with pytest.raises(FileError, match=name):
        read(tmp_path)


@pytest.mark.parametrize("number", SLIPS)
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_of_recipes_beyond_all_are_refused(key: str, number: str) -> None:
    text = demo_recipe().to_toml()
    with pytest.raises(RecipeError, match="must be"):
        Recipe.from_toml(text, [f"{key}={number}"])


@pytest.mark.parametrize("value", [10**9, "9" * 5000, "1000000x1", (1, 10**30)])
def test_resolutions_beyond_all_are_refused(value: object) -> None:
    with pytest.raises(SpaceError, match="whole pixels from 1 to"):
        parse_resolution(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_classes", 10**9),
        ("in_channels", 10**9),
        ("stages", [{"depths": [10**9], "genes": {"kernel": [3], "expand": [3]}}]),
        ("stages", [{"depths": [2], "genes": {"kernel": [3], "expand": [3]}}] * 5000),
        ("resolutions", list(range(1, 10**5))),
        ("resolutions", [10**9]),
    ],
)
def test_spaces_beyond_all_are_refused(key: str, value: object) -> None:
    said = {**get_space("ofa-mbv3-tiny").to_json(), key: value}
    with pytest.raises(OfaError, match=r"at most|from 1 to|but"):
        Space.from_json(said)
