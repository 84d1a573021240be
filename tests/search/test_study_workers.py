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
from search.front.front import Front
from search.study import Effort, run_study, run_workers
from tests.search.fakes import SMALL, SPACE, fake_problem, slow_problem
from tests.search.killing import assert_whole, kill_one, lines, trials_of, worker_process

pytestmark = pytest.mark.slow  # each worker is a Python that imports torch


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "study.journal")


def in_background(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_one_of_four_is_killed_and_no_trial_is_lost_or_done_twice(storage: str, tmp_path: Path) -> None:
    log, killed = tmp_path / "log", []
    in_background(lambda: kill_one(log, after=10, killed=killed))
    effort = Effort(trials=40, evaluations=0)
    front = run_workers(partial(slow_problem, str(log), 0.15), workers=4, seed=0, effort=effort, storage=storage)
    trials = assert_whole(trials_of(storage, SMALL.name), 40)
    assert len(killed) == 1
    assert front.info.study["workers"] == 4
    assert front.info.study["died"] == 1
    assert front.info.study["deaths"][0].endswith("it was killed by signal 9")
    assert front.info.study["trials"] == 40
    # What it was at has been taken over by another, once, under its own number; what it had finished is its own.
    taken = [trial for trial in trials if trial.user_attrs.get("attempts", 1) > 1]
    assert [trial.user_attrs["attempts"] for trial in taken] == [2]
    assert worker_process(taken[0]) != killed[0]
    ended = [row for process, what, row in lines(log) if what == "ends"]
    begun = [row for process, what, row in lines(log) if what == "begins"]
    assert len(begun) == len(ended) + 1
    finished_by_killed = [row for process, what, row in lines(log) if what == "ends" and int(process) == killed[0]]
    assert sum(worker_process(trial) == killed[0] for trial in trials) >= len(set(finished_by_killed))


def test_what_a_killed_search_has_left_is_finished_by_the_next(storage: str, tmp_path: Path) -> None:
    """All of it dies at once, as when the power fails."""
    log = tmp_path / "log"
    code = (
        "from functools import partial; from tests.search.fakes import slow_problem; from search.study import *; "
        f"run_study(slow_problem({str(log)!r}, 0.1), seed=0, effort=Effort(trials=20, evaluations=0), storage={storage!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    kill_one(log, after=5, killed=[])
    process.wait()
    assert [trial.state.name for trial in trials_of(storage, SMALL.name)].count("RUNNING") == 1
    finished = [trial.state.name for trial in trials_of(storage, SMALL.name)].count("COMPLETE")
    assert finished >= 3
    run_study(slow_problem(str(log), 0), seed=0, effort=Effort(trials=20, evaluations=0), storage=storage)
    trials = assert_whole(trials_of(storage, SMALL.name), 20)
    assert sum("attempts" in trial.user_attrs for trial in trials) == 1


def test_a_worker_that_is_silent_counts_as_dead_when_patience_ends(tmp_path: Path) -> None:
    """As on another machine, whose processes cannot be asked for: here one that is stopped."""
    log, storage, stopped = tmp_path / "log", str(tmp_path / "study.journal"), []
    code = (
        "from tests.search.fakes import slow_problem; from search.study import *; "
        f"run_study(slow_problem({str(log)!r}, 0.3), seed=0, effort=Effort(trials=6, evaluations=0), storage={storage!r}, patience_s=3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    kill_one(log, after=2, killed=stopped, how=signal.SIGSTOP)
    run_study(slow_problem(str(log), 0), seed=0, effort=Effort(trials=6, evaluations=0), storage=storage, patience_s=3)
    assert_whole(trials_of(storage, SMALL.name), 6)
    # It wakes, and what it comes to tell of is told already.
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    assert_whole(trials_of(storage, SMALL.name), 6)


def test_arrays_of_several_workers_find_what_one_finds(tmp_path: Path) -> None:
    effort = Effort(trials=48, evaluations=4000)
    make = partial(fake_problem, SPACE)
    front = run_workers(make, workers=3, seed=0, effort=effort, storage=str(tmp_path / "study.journal"))
    study = front.info.study
    assert study["trials"] == 48
    assert study["died"] == 0
    assert 3000 < study["evolved"] + study["neighbours"] <= 4000
    alone = run_study(make(), seed=0, effort=effort)
    assert mean_accuracy(front, alone) > mean_accuracy(alone, alone) - 0.005
    assert front.info.objectives == alone.info.objectives


def mean_accuracy(front: Front, at: Front) -> float:
    """The mean of the best accuracies for latencies that both fronts keep."""
    limits = at.networks["latency_high_ms@paper"].to_numpy()[5:]
    reached = [front.networks["accuracy"][front.networks["latency_high_ms@paper"] <= limit].max() for limit in limits]
    return float(sum(reached) / len(reached))


def test_workers_need_no_storage(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    effort = Effort(trials=20, evaluations=300, islands=4)
    front = run_workers(fake_problem, workers=2, seed=0, effort=effort, progress=lambda done, total, text="": seen.append((done, total)))
    assert front.info.study["trials"] == 20
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (320, 320)
    assert capfd.readouterr() == ("", "")


def test_two_runs_share_a_study(storage: str, tmp_path: Path) -> None:
    """As machines do: neither knows of the other but through the storage."""
    log = tmp_path / "log"
    code = (
        "from tests.search.fakes import slow_problem; from search.study import *; "
        f"run_study(slow_problem({str(log)!r}, 0.2), seed=0, effort=Effort(trials=30, evaluations=0), storage={storage!r})"
    )
    run_study(slow_problem(str(log), 0), seed=0, effort=Effort(trials=2, evaluations=0), storage=storage)  # makes the tables
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    trials = assert_whole(trials_of(storage, SMALL.name), 30)
    assert len({worker_process(trial) for trial in trials[4:]}) >= 2
    # The same seed does not make them measure the same networks.
    measured = [row for _, what, row in lines(log) if what == "ends"]
    assert len(measured) - len(set(measured)) <= 3


def test_when_all_die_one_sentence_tells_of_what(tmp_path: Path) -> None:
    storage, log = str(tmp_path / "study.journal"), str(tmp_path / "log")
    make = partial(slow_problem, log, 0.01, nan=True)
    with pytest.raises(SearchError, match=r"all 2 died, the first because an accuracy must be a number in 0\.\.1, but .* nan") as caught:
        run_workers(make, workers=2, seed=0, effort=Effort(trials=10, evaluations=0), storage=storage)
    assert "\n" not in str(caught.value)
    assert {trial.state.name for trial in trials_of(storage, SMALL.name)} == {"FAIL"}
    run_study(slow_problem(log, 0), seed=0, effort=Effort(trials=10, evaluations=0), storage=storage)
    assert_whole(trials_of(storage, SMALL.name), 10)


def test_a_trial_that_kills_whoever_tries_it_fails_in_the_end(tmp_path: Path) -> None:
    """Otherwise one network would end every search of this study."""
    log, storage = tmp_path / "log", str(tmp_path / "study.journal")
    for _ in range(3):
        code = (
            "import os; from tests.search.fakes import *; from search.study import *; problem = slow_problem("
            f"{str(log)!r}, 0.01); problem.accuracy._measured = lambda row_C: os._exit(1); "
            f"run_study(problem, seed=0, effort=Effort(trials=1, evaluations=0), storage={storage!r})"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    assert [(trial.state.name, trial.user_attrs.get("attempts")) for trial in trials_of(storage, SMALL.name)] == [("RUNNING", 3)]
    run_study(slow_problem(str(log), 0), seed=0, effort=Effort(trials=1, evaluations=0), storage=storage)
    assert [trial.state.name for trial in trials_of(storage, SMALL.name)] == ["FAIL", "COMPLETE"]


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
    assert {trial.state.name for trial in trials_of(storage, SMALL.name)} <= {"COMPLETE", "WAITING"}
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
