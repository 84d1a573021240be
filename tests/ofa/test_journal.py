"""Steps of long work, kept one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import Timing
from ofa.errors import FileError
from ofa.journal import UNKEPT, Journal, Steps

STEPS = 5


class KilledError(Exception):
    """What cuts work off."""


def work(steps: Steps, *, seed: int = 0, until: int = STEPS) -> list[float]:
    """Some steps, each of which draws and goes by what those before came to; cut off after ``until`` of them."""
    rng, results = np.random.default_rng(seed), list[float]()
    steps.begin({"seed": seed, "place": {"sizes": (1, 2)}})
    for number in range(STEPS):
        if number == until:
            raise KilledError
        results.append(steps.once(f"step {number}", lambda: float(rng.random()) + sum(results), float, rng=rng))
    return [*results, float(rng.random())]


def cut_off(path: Path, until: int, **more: bool) -> None:
    with pytest.raises(KilledError), Journal(path, doing="working", **more) as journal:
        work(journal, until=until)


@pytest.mark.parametrize("until", range(1, STEPS))
def test_work_that_was_cut_off_anywhere_ends_as_if_it_never_was(until: int, tmp_path: Path) -> None:
    path = tmp_path / "it.journal"
    cut_off(path, until)
    with Journal(path, doing="working", resume=True) as journal:
        assert journal.found == until
        assert work(journal) == work(UNKEPT)
    assert not list(tmp_path.iterdir())


def test_what_is_kept_is_neither_lost_nor_taken_unasked(tmp_path: Path) -> None:
    path = tmp_path / "it.journal"
    cut_off(path, 3)
    with (
        pytest.raises(FileError, match=r"'.*it\.journal' has 3 of an interrupted command; add --resume to continue it, or --ov"),
        Journal(path, doing="working"),
    ):
        pass
    cut_off(path, 2, overwrite=True)
    with Journal(path, doing="working", resume=True) as journal:
        assert journal.found == 2
        with pytest.raises(FileError, match="have seed 0 and now it is 1; repeat the interrupted command as it was, or add --overwrite"):
            work(journal, seed=1)
        assert len(journal) == 2
        with pytest.raises(KilledError):
            work(journal, until=4)


def test_nothing_is_left_where_no_step_was_done(tmp_path: Path) -> None:
    cut_off(tmp_path / "it.journal", 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", range(4))
def test_a_damaged_line_costs_its_step_alone(line: int, tmp_path: Path) -> None:
    path = tmp_path / "it.journal"
    cut_off(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line][:40] + bytes([lines[line][40] ^ 1]) + lines[line][41:]
    path.write_bytes(b"".join(lines) + lines[-1][:30])  # and half a line that a killed writer left
    with Journal(path, doing="working", resume=True) as journal:
        assert (journal.found, journal.damaged) == (3 if line == 0 else 2, 1)
        assert work(journal) == work(UNKEPT)


def test_other_work_is_refused_though_the_line_that_describes_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "it.journal"
    cut_off(path, 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with (
        Journal(path, doing="working", resume=True) as journal,
        pytest.raises(FileError, match="have others; repeat the interrupted command"),
    ):
        work(journal, seed=1)


def test_one_process_works_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "it.journal"
    path.mkdir()
    with pytest.raises(FileError, match="must be a file to be written, but it is a folder"), Journal(path, doing="working"):
        pass
    with pytest.raises(FileError, match="must be in a folder that exists"), Journal(tmp_path / "no" / "it.journal", doing="working"):
        pass


def test_what_a_step_came_to_is_of_its_kind(tmp_path: Path) -> None:
    path, timing = tmp_path / "it.journal", Timing(median_ms=0.1 + 0.2, p90_ms=1.0, min_ms=1e-9, std_ms=0.0, repeats=3, energy_mj=0.3)

    def once(kind: Any) -> None:
        with Journal(path, doing="working", resume=True) as journal:
            journal.begin({})
            found = journal.once("it", lambda: {"a": timing}, kind)
            raise KilledError(found)

    for _ in range(2):
        with pytest.raises(KilledError) as killed:
            once(Mapping[str, Timing])
        assert killed.value.args == ({"a": timing},)
    with pytest.raises(FileError, match="must be unchanged, but 'it' is not: it must be a number"):
        once(float)
