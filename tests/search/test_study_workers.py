"""Real processes at one study, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ofa.errors import SearchError
from search.study import Effort, run_study, run_workers
from tests.search.fakes import SMALL, fake_problem, slow_problem
from tests.search.killing import assert_whole, kill_one, lines, trials_of

pytestmark = pytest.mark.slow  # each worker is a Python that imports torch


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "study.journal")


GRACE_S = 4  # SQLite's clock has whole seconds, and a busy machine needs some of them


def states_of(storage: str) -> list[str]:
    return [trial.state.name for trial in trials_of(storage, SMALL.name)]


def search_elsewhere(log: Path, storage: str, *, seconds: float, trials: int, before: str = "pass") -> subprocess.Popen[bytes]:
    """Another Python at the study, as on another machine: neither knows of the other but through the storage."""
    code = (
        "import os; from tests.search.fakes import slow_problem; from search.study import *; "
        f"problem = slow_problem({str(log)!r}, {seconds}); {before}; "
        f"run_study(problem, seed=0, effort=Effort(trials={trials}, evaluations=0), storage={storage!r}, grace_s={GRACE_S})"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def search_here(log: Path, storage: str, trials: int) -> None:
    run_study(slow_problem(str(log), 0), seed=0, effort=Effort(trials=trials, evaluations=0), storage=storage, grace_s=GRACE_S)


def in_background(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_one_of_three_is_killed_and_nothing_finished_is_lost(storage: str, tmp_path: Path) -> None:
    log, killed = tmp_path / "log", list[int]()
    in_background(lambda: kill_one(log, after=6, killed=killed))
    make = partial(slow_problem, str(log), 0.3)
    front = run_workers(make, workers=3, seed=0, effort=Effort(trials=30, evaluations=0), storage=storage, grace_s=GRACE_S)
    trials = trials_of(storage, SMALL.name)
    assert len(killed) == 1
    assert_whole(trials, 30, log, workers=3, killed=killed)
    study = front.info.study
    assert (study["workers"], study["died"]) == (3, 1)
    assert study["deaths"][0].endswith("it was killed by signal 9")
    assert study["trials"] == [trial.state.name for trial in trials].count("COMPLETE")
    retried = [trial for trial in trials if trial.system_attrs.get("retry_history")]
    # Optuna has a heartbeat in databases: what the killed one was at is tried again. In a journal another network takes its place.
    assert len(retried) >= storage.startswith("sqlite")


def test_what_a_killed_search_has_left_is_finished_by_the_next(storage: str, tmp_path: Path) -> None:
    """All of it dies at once, as when the power fails."""
    log, killed = tmp_path / "log", list[int]()
    process = search_elsewhere(log, storage, seconds=0.1, trials=12)
    kill_one(log, after=5, killed=killed)
    process.wait()
    assert states_of(storage).count("RUNNING") == 1
    assert states_of(storage).count("COMPLETE") >= 3
    search_here(log, storage, 12)
    assert_whole(trials_of(storage, SMALL.name), 12, log, killed=killed)


def test_a_worker_that_was_silent_for_too_long_goes_on(tmp_path: Path) -> None:
    """As a laptop that sleeps: its trial is tried again, and when it wakes it is told so and takes the next one."""
    log, storage, stopped = tmp_path / "log", f"sqlite:///{tmp_path}/study.db", list[int]()
    process = search_elsewhere(log, storage, seconds=0.3, trials=8)
    kill_one(log, after=2, killed=stopped, how=signal.SIGSTOP)
    time.sleep(GRACE_S + 2)
    search_here(log, storage, 5)
    assert any(trial.system_attrs.get("retry_history") for trial in trials_of(storage, SMALL.name))
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=120) == 0
    assert_whole(trials_of(storage, SMALL.name), 8, log, killed=stopped)


def test_workers_need_no_storage(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    effort = Effort(trials=20, evaluations=0)
    front = run_workers(fake_problem, workers=2, seed=0, effort=effort, progress=lambda done, total, text="": seen.append((done, total)))
    assert front.info.study["trials"] in (20, 21)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (20, 20)
    assert capfd.readouterr() == ("", "")


def test_evolution_is_not_divided_among_workers() -> None:
    with pytest.raises(SearchError, match="evolution by arrays computes them in one process and got 2; search with 1 worker"):
        run_workers(fake_problem, workers=2, seed=0)


def test_a_script_that_searches_where_it_is_read_is_told_where_to(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.search.fakes import fake_problem; from search.study import *\n"
        "run_workers(fake_problem, workers=2, seed=0, effort=Effort(trials=10, evaluations=0))"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback") == 1
    last = done.stderr.splitlines()[-1]
    assert 'must search with several workers under `if __name__ == "__main__":`' in last
    assert f"but '{script}' does so wherever it is read; put the call there" in last


def test_two_runs_share_a_study(storage: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    search_here(log, storage, 2)  # makes the tables
    processes = [search_elsewhere(log, storage, seconds=0.2, trials=24) for _ in range(2)]
    assert [process.wait(timeout=180) for process in processes] == [0, 0]
    assert_whole(trials_of(storage, SMALL.name), 24, log, workers=2)
    assert len({process for process, _, _ in lines(log)}) == 3
    # The same seed does not make them measure the same networks.
    measured = [row for _, what, row in lines(log) if what == "ends"]
    assert len(measured) - len(set(measured)) <= 3


def test_when_all_die_one_sentence_tells_of_what(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    storage, log = str(tmp_path / "study.journal"), tmp_path / "log"
    make = partial(slow_problem, str(log), 0.01, nan=True)
    with pytest.raises(SearchError, match=r"all 2 died, the first because an accuracy must be a number in 0\.\.1, but .* nan") as caught:
        run_workers(make, workers=2, seed=0, effort=Effort(trials=10, evaluations=0), storage=storage)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert states_of(storage).count("FAIL") == 2
    log.unlink()
    search_here(log, storage, 10)
    assert_whole(trials_of(storage, SMALL.name), 10, log)


def test_trials_that_kill_their_processes_do_not_end_the_study(tmp_path: Path) -> None:
    log, storage = tmp_path / "log", f"sqlite:///{tmp_path}/study.db"
    deadly = "problem.accuracy._measured = lambda row_C: (__import__('time').sleep(3), os._exit(1))"  # after its first heartbeat
    assert [search_elsewhere(log, storage, seconds=0, trials=1, before=deadly).wait() for _ in range(2)] == [1, 1]
    assert states_of(storage).count("RUNNING") >= 1
    time.sleep(GRACE_S + 2)
    search_here(log, storage, 1)
    assert "RUNNING" not in states_of(storage)
    assert_whole(trials_of(storage, SMALL.name), 1, log)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_watches_over_them(how: signal.Signals, tmp_path: Path) -> None:
    log, storage = tmp_path / "log", str(tmp_path / "study.journal")
    code = (
        "from functools import partial; from tests.search.fakes import slow_problem; from search.study import *\n"
        "if __name__ == '__main__':\n"
        f"    run_workers(partial(slow_problem, {str(log)!r}, 0.2), workers=2, seed=0, effort=Effort(trials=500, evaluations=0), "
        f"storage={storage!r})"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": os.getcwd()}, stderr=file)
    deadline = time.monotonic() + 120
    while len({process for process, _, _ in lines(log)}) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    assert process.wait(timeout=30) != 0
    while any(exists(int(worker)) for worker, _, _ in lines(log)) and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = len(lines(log))
    assert set(states_of(storage)) <= {"COMPLETE", "WAITING", "FAIL"}
    time.sleep(0.5)
    assert len(lines(log)) == begun
    assert not any(exists(int(worker)) for worker, _, _ in lines(log))
    assert "Traceback" not in errors.read_text() or how == signal.SIGINT  # which Python itself tells of


def exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
