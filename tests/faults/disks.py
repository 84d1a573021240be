"""Disks that fail while a command writes: what each refuses from some operation on, and what must hold afterwards."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.commands import Command, Place, Road
from tests.faults.kills import is_leftover, said_well
from tests.faults.operations import Operation

__all__ = ["DISKS", "Disk", "fail_once"]

ALL = frozenset(("make", "open", "write", "sync", "rename", "remove", "change mode"))


@dataclass(frozen=True)
class Disk:
    """How a disk fails.

    Attributes:
        code: the system's error.
        kinds: of operations that fail with it.
        lasting: whether all of these fail from the operation on, or that one alone.
        vanishes: whether everything on it is gone at once instead.
    """

    code: int = errno.EIO
    kinds: frozenset[str] = ALL
    lasting: bool = True
    vanishes: bool = False

    def deciding(self, at: int, place: Place) -> Callable[[int, Operation, int], int | None]:
        """What answers the operations of a command, from the one with the number ``at`` on."""

        def decide(number: int, operation: Operation, process: int) -> int | None:
            if number == at and self.vanishes:
                shutil.rmtree(place.work)
            late = number >= at if self.lasting else number == at
            return self.code if late and not self.vanishes and operation.kind in self.kinds else None

        return decide


DISKS = {
    "full": Disk(errno.ENOSPC, frozenset(("make", "write", "sync"))),
    "over quota": Disk(errno.EDQUOT, frozenset(("write", "sync"))),
    "without inodes": Disk(errno.ENOSPC, frozenset(("make",))),
    "read-only": Disk(errno.EROFS),
    "broken": Disk(errno.EIO),
    "broken once": Disk(errno.EIO, lasting=False),
    "vanished": Disk(vanishes=True),
}


def fail_once(command: Command, disk: Disk, at: int, road: Road, root: Path) -> bool:
    """Let a disk fail before an operation of a command; returns whether the command failed.

    Raises:
        AssertionError: it did not say why in one sentence, the old files are not whole, or files that could be removed were left.
    """
    goal = road.to(command)
    place = Place.of(root, goal.start)
    ended = place.run(road.zygote, command.words, disk.deciding(at, place))
    assert not ended.orphans, ended.orphans
    assert ended.status in (0, 1), (ended.status, ended.err)
    assert not ended.status or said_well(ended), ended.err
    if disk.vanishes:
        return bool(ended.status)
    found = command.content(place.work)  # raises where a file is damaged
    if command.fuzzy:
        assert all(found.get(name) == value for name, value in goal.old.items())
    else:
        assert ended.status or found == goal.new, f"'ofa {command.words}' says that it worked"
        for name, value in found.items():
            assert value in {goal.old.get(name), goal.new.get(name)} | ({None} if command.begins else set()), name
    if "remove" not in disk.kinds:
        # SQLite begins its journal anew with the next write.
        left = {name for name in place.files() if is_leftover(name) and not name.endswith("-journal")}
        assert not left, left
    return bool(ended.status)
