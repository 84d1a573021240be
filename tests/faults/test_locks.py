"""One writer: real processes that want the same file, are killed while they hold it, and come from elsewhere."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latency_tables import LatencyTable, blocks_of_space
from ofa.errors import FileError
from ofa.families import get_space
from ofa.locking import lock_of, writing
from ofa.training import load_run
from tests.recipes import digits_recipe

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from ofa.locking import writing
with writing(sys.argv[1], "building a table"):
    print("there", flush=True)
    time.sleep(float(sys.argv[2]))
"""
MANY = """
import fcntl, os, random, signal, sys, time
from ofa.locking import writing

folder, kills = sys.argv[1], int(sys.argv[2])
rng = random.Random(0)

def is_inside(name):
    try:
        with open(f"{folder}/{name}") as file:
            # Shared, because one who is killed while looking gives this back after the lock, and is not inside any more.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False

def work():
    # Opened before the lock: of a process that is killed the system closes the files in this order.
    inside = open(f"{folder}/inside{os.getpid()}", "w")
    told = os.open(f"{folder}/told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        with writing(f"{folder}/count", wait_s=60):
            others = [name for name in os.listdir(folder) if name.startswith("inside") and is_inside(name)]
            fcntl.flock(inside, fcntl.LOCK_EX)
            with open(f"{folder}/count") as file:
                number = int(file.read() or 0) + 1
            with open(f"{folder}/new", "w") as file:
                file.write(str(number))
            os.replace(f"{folder}/new", f"{folder}/count")
            os.write(told, f"{number} {len(others)}\\n".encode())
            fcntl.flock(inside, fcntl.LOCK_UN)

def start():
    process = os.fork()
    if not process:
        work()
    return process

open(f"{folder}/count", "w").close()
workers = [start() for _ in range(5)]
for _ in range(kills):
    time.sleep(rng.random() * 0.02)
    place = rng.randrange(5)
    os.kill(workers[place], signal.SIGKILL)
    os.waitpid(workers[place], 0)
    try:
        os.unlink(f"{folder}/inside{workers[place]}")
    except FileNotFoundError:
        pass
    workers[place] = start()
time.sleep(1)
for worker in workers:
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
with writing(f"{folder}/count"):
    pass
"""
"""Processes that count, each alone, while they are killed: what a number is told twice for was done twice, or lost."""


def start(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@contextmanager
def holder(path: Path, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``path``."""
    other = start(HOLD, path, seconds)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        yield other
    finally:
        other.kill()
        other.communicate()


def test_the_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with holder(path) as other:
        began = time.monotonic()
        with (
            pytest.raises(FileError, match=rf"one writer at a time, but process {other.pid} has been building a table since 20"),
            writing(path),
        ):
            pass
        assert time.monotonic() - began < 1
        with writing(tmp_path / "u.parquet"):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert lock_of(path).exists()
        with writing(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_path_has_one_lock_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    with holder(tmp_path / "run"):
        for name in ("../link", ".", str(tmp_path / "run" / ".." / "run")):
            with pytest.raises(FileError, match="one writer at a time"), writing(name):
                pass


def test_blocks_of_one_thread_are_let_in_and_others_not(tmp_path: Path) -> None:
    path, told = tmp_path / "t", list[str]()

    def other() -> None:
        try:
            with writing(path):
                told.append("let in")
        except FileError as error:
            told.append(str(error))

    with writing(path, "training"):
        with writing(path):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert lock_of(path).exists(), "the outer block still holds it"
    assert "another thread of this process has been training" in told[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kills", [30, pytest.param(1000, marks=pytest.mark.torture)])
def test_of_many_writers_none_is_lost_and_no_two_are_inside_though_they_are_killed(
    kills: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    other = start(MANY, tmp_path, kills)
    assert other.wait() == 0
    other.communicate()
    told = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    numbers = [int(number) for number, _ in told]
    assert len(numbers) > kills
    assert len(set(numbers)) == len(numbers)
    assert {others for _, others in told} == {"0"}
    assert int((tmp_path / "count").read_text()) - len(numbers) <= kills + 5, "a killed one may have counted before it could tell"
    assert not lock_of(tmp_path / "count").exists()
    record_property("figures", {"what": "kills of writers that wait for each other", "tried": kills, "turns": len(numbers)})


def test_a_forked_child_neither_holds_nor_keeps_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "t"
    code = (
        "import os, sys, time\nfrom ofa.errors import FileError\nfrom ofa.locking import writing\n"
        "with writing(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"
        "        try:\n            with writing(sys.argv[1]): print('in', flush=True)\n"
        "        except FileError: print('out', flush=True)\n"
        "        time.sleep(20)\n        os._exit(0)\n"
        "    time.sleep(60)\n"
    )
    parent = start(code, path)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "out\n"
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        with writing(path):
            pass
    finally:
        parent.kill()
        parent.stdout.close()


@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"process": 1, "host": "elsewhere", "doing": "training", "since": "2020-01-01 00:00:00"}).encode(),
        b"",
        b"\xff" * 10_000,
        b"[" * 10_000,
        b"7",
    ],
)
def test_what_a_dead_writer_left_holds_nobody(said: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t"
    lock_of(path).write_bytes(said)
    with writing(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_lock_says_is_shown_only_if_it_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with holder(path):
        lock_of(path).write_text(json.dumps({"process": 1, "host": "\x1b[31mx", "doing": "x", "since": "now"}))
        with pytest.raises(FileError, match="but another process is writing it; wait"), writing(path):
            pass
        lock_of(path).write_text(json.dumps({"process": 1, "host": "elsewhere", "doing": "training", "since": "noon"}))
        with pytest.raises(FileError, match="but process 1 on elsewhere has been training since noon; wait"), writing(path):
            pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_one_sentence(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(FileError, match=r"must be locked while it is written, but .* choose a folder on a local disk"),
        writing(tmp_path / "t"),
    ):
        pass


def test_places_that_cannot_be_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lock_of(tmp_path / "taken").mkdir()
    lock_of(tmp_path / "linked").symlink_to("file")
    for path in (tmp_path / "none" / "t", tmp_path / "file" / "t", tmp_path / "taken", tmp_path / "linked", "a\0b"):
        with pytest.raises(FileError, match="must be"), writing(path):
            pass
    with writing(tmp_path / ("ä" * 127)):
        pass


# -- commands that run at the same time ---------------------------------------------------------------------------------

RECIPE = digits_recipe(2, "fractions = [0.1, 0.1, 0.8]", "evaluate_every = 0")


def ofa(folder: Path, words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ofa", *words.split()]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def all_of(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """How each ended, and what it said."""
    told = [process.communicate()[1] for process in processes]
    return [(process.returncode, " ".join(words.split())) for process, words in zip(processes, told, strict=True)]


@pytest.mark.slow
def test_no_rows_are_lost_where_a_build_and_a_calibration_meet(tmp_path: Path) -> None:
    """Whichever comes first: what a command that ended well has written is there in the end."""
    fake = "--space ofa-mbv3-tiny --device fake"
    assert all_of([ofa(tmp_path, f"table build {fake} --resolutions 16 -o t")])[0][0] == 0
    build, calibrate = f"table build {fake} --resume -o t", f"table calibrate t {fake} --nets 9 --resolutions 16"
    (built, words), (calibrated, told) = all_of([ofa(tmp_path, build), ofa(tmp_path, calibrate)])
    table = LatencyTable.load(tmp_path / "t")
    assert 0 in (built, calibrated)
    assert built == 0 or "one writer at a time, but process" in words
    assert calibrated == 0 or "one writer at a time, but process" in told
    assert len(table) == len(blocks_of_space(get_space("ofa-mbv3-tiny"), None if built == 0 else [16]))
    assert calibrated != 0 or table.correction is not None or "calibrate it again" in words
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.slow
def test_of_several_that_train_one_run_one_does(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text(RECIPE)
    ended = all_of([ofa(tmp_path, f"train few.toml -o run --set seed={seed} --on cpu") for seed in range(3)])
    assert sorted(status for status, _ in ended) == [0, 1, 1]
    seed = [status for status, _ in ended].index(0)
    run = load_run(tmp_path / "run")
    assert (run.recipe.seed, len(run.metrics)) == (seed, 2)
    assert all("one writer at a time" in words or "must not hold a run yet" in words for status, words in ended if status)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.toml", "run"]


@pytest.mark.slow
def test_a_run_whose_trainer_is_killed_is_free(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 200"))
    first = ofa(tmp_path, "train few.toml -o run --on cpu")
    while not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text():
        assert first.poll() is None
        time.sleep(0.05)
    second = all_of([ofa(tmp_path, "train --resume run --on cpu")])[0]
    assert second[0] == 1
    assert f"'run' must have one writer at a time, but process {first.pid} has been training since" in second[1]
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    third = ofa(tmp_path, "train --resume run --on cpu")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().count("\n")
    while (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") <= lines:
        assert third.poll() is None
        time.sleep(0.05)
    third.terminate()
    third.communicate()
    assert third.returncode == 143
    assert not lock_of(tmp_path / "run").exists()
