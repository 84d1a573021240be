"""Commands that are killed, again and again, and what must hold after each kill and after the start that is let end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.commands import Command, Place, Road, Uninterrupted
from tests.faults.operations import Operation
from tests.faults.zygote import Ended

__all__ = ["Death", "Tally", "is_leftover", "kill_often", "said_well", "spread", "unsynced"]


@dataclass(frozen=True)
class Death:
    """How a command ends early: by which signal, and before which operation or after how many seconds."""

    number: signal.Signals = signal.SIGKILL
    operation: int | None = None
    seconds: float | None = None

    def settings(self) -> dict[str, Any]:
        """Arguments of ``Place.run``."""
        if self.seconds is not None:
            return {"kill_after_s": self.seconds}

        def decide(number: int, operation: Operation, process: int) -> None:
            if number == self.operation:
                os.kill(process, self.number)

        return {"decide": decide}


@dataclass
class Tally:
    """What was done.

    Attributes:
        kills: that came before the end.
        late: that came too late.
        ends: starts that were let end, and compared.
    """

    kills: int = 0
    late: int = 0
    ends: int = 0


def kill_often(command: Command, road: Road, root: Path, deaths: Sequence[Death], *, in_a_row: int) -> Tally:
    """Start a command and kill it, start it again and kill it, and so on; and let it end after ``in_a_row`` kills.

    Raises:
        AssertionError: a file is neither old nor new, work that was complete is lost, a process or a file is left, or the results are
            not those of a command that was left alone.
    """
    tally, goal, waiting = Tally(), road.to(command), list(deaths)
    while waiting:
        place, words, seen = Place.of(root / f"{command.name}-{tally.ends}", goal.start), command.words, dict(goal.old)
        for start in range(min(in_a_row, len(waiting))):
            death = waiting[0]
            ended = place.run(road.zygote, words, **death.settings())
            dead = ended.status == -death.number or ended.status == 128 + death.number
            assert dead or not ended.status or _is_done(command, goal, place), (death, ended.status, ended.err)
            seen = _check_whole(command, goal, place, seen, death)
            if death.number != signal.SIGKILL and dead:
                assert said_well(ended), ended.err
                # A lock file stays where the signal came while it was taken; its next holder removes it.
                assert not {name for name in place.files() if is_leftover(name) and not name.endswith(".lock")}, (death, place.files())
            words = f"{command.words} {command.again}"
            tally.kills += dead
            if dead or not start:  # a start that had less to do and ended is no reason not to try this death on one from the beginning
                waiting.pop(0)
                tally.late += not dead
            if not dead:
                break
        _let_end(command, goal, place, words, road, seen)
        tally.ends += 1
        shutil.rmtree(place.root)
    return tally


def is_leftover(name: str) -> bool:
    """Whether a file that was left is of no use to anybody."""
    path = Path(name)
    return (path.parts[0] == "tmp" and len(path.parts) > 1) or path.name.endswith((".part", ".lock", ".aside", ".old", "-journal"))


def said_well(ended: Ended) -> bool:
    """Whether a command that failed said why in a sentence."""
    last = ended.err.strip().splitlines()[-1:] or [""]
    return last[0].startswith("ofa: ") and "Traceback" not in ended.err and "should not have happened" not in ended.err


def _check_whole(command: Command, goal: Uninterrupted, place: Place, seen: dict[str, str | None], death: Death) -> dict[str, str | None]:
    """Read everything that is there; returns it."""
    found = command.content(place.work)  # raises where a file is damaged
    if command.fuzzy:
        lost = {name for name, value in seen.items() if found.get(name) != value}
        assert not lost, f"{death} lost {lost}"
        return found
    for name, value in found.items():
        allowed = {goal.old.get(name), goal.new.get(name)} | ({None} if command.begins else set())
        assert value in allowed, f"{death}: '{name}' is neither what it was nor what it is to be"
        assert value == goal.new[name] or seen.get(name) != goal.new[name] or command.begins, f"{death}: '{name}' was complete and is lost"
    return found


def _is_done(command: Command, goal: Uninterrupted, place: Place) -> bool:
    """Whether everything is there already, which a command that does not replace unasked refuses to do again."""
    return not command.fuzzy and command.content(place.work) == goal.new


def _let_end(command: Command, goal: Uninterrupted, place: Place, words: str, road: Road, seen: dict[str, str | None]) -> None:
    done = _is_done(command, goal, place)
    ended = place.run(road.zygote, words)
    assert not ended.status or (done and said_well(ended)), (words, ended.status, ended.err)
    assert not ended.orphans, ended.orphans
    found = command.content(place.work)
    if command.fuzzy:
        assert all(found.get(name) == value for name, value in seen.items())
        assert len(found) >= len(goal.new) - 1, (found, goal.new)
    else:
        assert found == goal.new, f"after the kills 'ofa {words}' comes to something else"
    left = {name for name in place.files() ^ goal.files if not command.fuzzy or is_leftover(name)}
    if done:  # nothing was written, and a lock file is its next holder's to remove
        left = {name for name in left if not name.endswith(".lock")}
    assert not left, f"'ofa {words}' left {sorted(left)}"


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
            if any(part.startswith(".") for part in operation.to.parts):  # another temporary name: what it holds is still to be synced
                dirty = (dirty - waiting) | {operation.to / path.relative_to(operation.path) for path in waiting}
            elif waiting:
                found.append(f"{operation.to}: {sorted(map(str, waiting))} not synced before")
            elif not any(each.kind == "sync" and each.path == operation.to.parent for each in later):
                found.append(f"{operation.to}: the name is not synced")
    return found


def spread(total: int, most: int) -> list[int]:
    """Numbers of operations, all of them or as many as are to be tried, evenly."""
    return sorted({round(index * total / most) for index in range(most)}) if total > most else list(range(total))
