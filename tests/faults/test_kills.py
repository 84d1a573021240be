"""Kills at every operation on files and at random moments: nothing is lost, nothing is left, and the results are the same."""

from __future__ import annotations

import random
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import COMMANDS, by_name
from tests.faults.kills import Death, Tally, kill_often

FAST = ("train", "build")
MOST_OPERATIONS = 120
"""Of a command that are tried one by one; of a longer one (SQLite has more than a thousand) as many, evenly."""
IN_A_ROW = 4
Count = Callable[[str, Any], None]


def note(count: Count, command: str, tally: Tally) -> None:
    count("figures", {"what": f"kills of {command}", "tried": tally.kills, "late": tally.late, "compared": tally.ends})


def operations(total: int, most: int) -> list[int]:
    return sorted({round(index * total / most) for index in range(most)}) if total > most else list(range(total))


@pytest.mark.parametrize("name", FAST)
def test_a_command_that_is_killed_goes_on_and_comes_to_the_same(name: str, road: Any, tmp_path: Path) -> None:
    command = by_name(name)
    total = len(road.to(command).ended.operations)
    deaths = [Death(operation=number) for number in operations(total, 8)]
    deaths[4] = Death(signal.SIGTERM, deaths[4].operation)
    tally = kill_often(command, road, tmp_path, deaths, in_a_row=8)
    assert tally.kills >= 4


@pytest.mark.torture
@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_kills_at_every_operation(name: str, road: Any, tmp_path: Path, record_property: Count) -> None:
    command = by_name(name)
    total = len(road.to(command).ended.operations)
    deaths = (Death(operation=number) for number in operations(total, 24 if command.fuzzy else MOST_OPERATIONS))
    note(record_property, name, kill_often(command, road, tmp_path, deaths, in_a_row=IN_A_ROW))


@pytest.mark.torture
@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_kills_at_random_moments(name: str, road: Any, tmp_path: Path, record_property: Count) -> None:
    command = by_name(name)
    note(record_property, name, kill_often(command, road, tmp_path, moments(name, road, 8 if command.fuzzy else 40), in_a_row=IN_A_ROW))


def moments(name: str, road: Any, count: int) -> Iterator[Death]:
    rng = random.Random(zlib.crc32(name.encode()))
    for _ in range(count):
        yield Death(seconds=rng.random() * road.to(by_name(name)).ended.took_s)


@pytest.mark.torture
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_signals_clean_up(number: signal.Signals, name: str, road: Any, tmp_path: Path, record_property: Count) -> None:
    command = by_name(name)
    total = len(road.to(command).ended.operations)
    deaths = (Death(number, operation) for operation in operations(total, 4 if command.fuzzy else 16))
    note(record_property, name, kill_often(command, road, tmp_path, deaths, in_a_row=IN_A_ROW))
