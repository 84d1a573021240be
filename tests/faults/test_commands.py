"""A real command whose operations on files are heard of: killed, refused the disk, and looked at in order. ``make torture`` tries all."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import by_name
from tests.faults.disks import DISKS, fail_once
from tests.faults.kills import Death, kill_often, spread, unsynced

TRAIN = by_name("train")


def test_a_command_that_is_killed_goes_on_and_comes_to_the_same(road: Any, tmp_path: Path) -> None:
    deaths = [Death(operation=number) for number in spread(len(road.to(TRAIN).ended.operations), 5)]
    deaths[2] = Death(signal.SIGTERM, deaths[2].operation)
    assert kill_often(TRAIN, road, tmp_path, deaths, in_a_row=len(deaths)).kills >= 3


@pytest.mark.parametrize("disk", ["full", "vanished"])
def test_a_disk_that_fails_is_one_sentence(disk: str, road: Any, tmp_path: Path) -> None:
    assert fail_once(TRAIN, DISKS[disk], len(road.to(TRAIN).ended.operations) // 2, road, tmp_path / "place")


def test_content_is_on_the_disk_before_its_name(road: Any) -> None:
    operations = road.to(TRAIN).ended.operations
    assert any(operation.kind == "rename" for operation in operations)
    assert unsynced(operations) == []
    assert unsynced([operation for operation in operations if operation.kind != "sync"])
