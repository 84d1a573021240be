"""A power failure keeps what was synced: of every command, content is on the disk before its name is, and the name before the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.commands import COMMANDS, by_name
from tests.faults.operations import Operation

FAST = ("train", "build")
NAMES = [pytest.param(c.name, marks=[] if c.name in FAST else [pytest.mark.torture]) for c in COMMANDS]


def unsynced(operations: Sequence[Operation]) -> list[str]:
    """Every renaming that a power failure could leave with less than the whole content, or undo after the end of the command."""
    found, dirty = [], set()
    for index, operation in enumerate(operations):
        if operation.kind == "write":
            dirty.add(operation.path)
        elif operation.kind == "sync":
            dirty.discard(operation.path)
        elif operation.kind == "rename" and operation.to is not None:
            waiting = {path for path in dirty if path.is_relative_to(operation.path)}
            later = operations[index + 1 :]
            if operation.to.name.startswith("."):  # another temporary name: what it holds is still to be synced
                dirty = (dirty - waiting) | {operation.to / path.relative_to(operation.path) for path in waiting}
            elif waiting:
                found.append(f"{operation.to}: {sorted(map(str, waiting))} not synced before")
            elif not any(each.kind == "sync" and each.path == operation.to.parent for each in later):
                found.append(f"{operation.to}: the name is not synced")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_content_is_on_the_disk_before_its_name(name: str, road: Any) -> None:
    operations = road.to(by_name(name)).ended.operations
    assert any(operation.kind == "rename" for operation in operations), "the command writes nothing"
    assert unsynced(operations) == []
