"""Disks that are full, read-only, broken or gone at every operation: one sentence, old files whole, nothing left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import COMMANDS, by_name
from tests.faults.disks import DISKS, fail_once

MOST_OPERATIONS = 6
"""Of a command that are tried on each disk, evenly; they differ from disk to disk."""


def operations(name: str, disk: str, road: Any, most: int) -> list[int]:
    total = len(road.to(by_name(name)).ended.operations)
    offset = list(DISKS).index(disk) / len(DISKS)
    return sorted({int((index + offset) * total / most) for index in range(min(most, total))})


@pytest.mark.torture
@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_disks_fail_at_operations_of_every_command(
    name: str, disk: str, road: Any, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    command = by_name(name)
    tried = operations(name, disk, road, 3 if command.fuzzy else MOST_OPERATIONS)
    failed = sum(fail_once(command, DISKS[disk], at, road, tmp_path / "place") for at in tried)
    record_property("figures", {"what": f"disk {disk}", "tried": len(tried), "failed": failed})
