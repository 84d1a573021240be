"""Kills at every operation on files and at random moments: nothing is lost, nothing is left, and the results are the same."""

from __future__ import annotations

import random
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import COMMANDS, Place, by_name
from tests.faults.kills import Death, Tally, kill_often, spread, unsynced

MOST_OPERATIONS = 300
"""Of a command that are tried one by one; of a longer one (SQLite has more than a thousand) as many, evenly."""
IN_A_ROW = 8
pytestmark = [pytest.mark.torture, pytest.mark.parametrize("name", [command.name for command in COMMANDS])]
Count = Callable[[str, Any], None]


def note(count: Count, command: str, tally: Tally) -> None:
    count("figures", {"what": f"kills of {command}", "tried": tally.kills, "late": tally.late, "compared": tally.ends})


def test_kills_at_every_operation(name: str, road: Any, tmp_path: Path, record_property: Count) -> None:
    command = by_name(name)
    total = len(road.to(command).ended.operations)
    deaths = [Death(operation=number) for number in spread(total, 12 if command.fuzzy else MOST_OPERATIONS)]
    note(record_property, name, kill_often(command, road, tmp_path, deaths, in_a_row=IN_A_ROW))


def test_kills_at_random_moments(name: str, road: Any, tmp_path: Path, record_property: Count) -> None:
    command = by_name(name)
    # Once more, because the first time everything was imported.
    usual_s = Place.of(tmp_path / "usual", road.to(command).start).run(road.zygote, command.words).took_s
    rng = random.Random(zlib.crc32(name.encode()))
    deaths = [Death(seconds=rng.random() * usual_s) for _ in range(4 if command.fuzzy else 16)]
    note(record_property, name, kill_often(command, road, tmp_path, deaths, in_a_row=IN_A_ROW))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_clean_up(number: signal.Signals, name: str, road: Any, tmp_path: Path, record_property: Count) -> None:
    command = by_name(name)
    total = len(road.to(command).ended.operations)
    deaths = [Death(number, operation) for operation in spread(total, 2 if command.fuzzy else 8)]
    note(record_property, name, kill_often(command, road, tmp_path, deaths, in_a_row=IN_A_ROW))


def test_content_is_on_the_disk_before_its_name(name: str, road: Any, record_property: Count) -> None:
    operations = road.to(by_name(name)).ended.operations
    assert unsynced(operations) == []
    record_property("figures", {"what": "renames that a power failure leaves whole", "tried": sum(o.kind == "rename" for o in operations)})
