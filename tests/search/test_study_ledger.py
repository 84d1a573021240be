"""What holds the study together when several workers write on it, and the storages it is kept by."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ofa.errors import MissingExtraError, SearchError
from search.study import Effort, run_study
from search.study.claims import Claim
from search.study.heartbeat import is_alive, worker_name
from search.study.ledger import Ledger
from search.study.storages import open_storage, without_password
from tests.search.fakes import fake_problem
from tests.search.killing import trials_of

GENES = {f"gene{i}": IntDistribution(0, 2) for i in range(3)}
PROPOSED = create_trial(state=TrialState.RUNNING, params=dict.fromkeys(GENES, 1), distributions=dict(GENES))
DESCRIPTION = {"objectives": ["macs"]}
NO_PROCESS = 2**22 + 1
"""A number that no process has: Linux ends at 2^22."""


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "study.journal")


def open_ledger(storage: str, worker: str = "", **settings: Any) -> Ledger:
    return Ledger(storage, "study", DESCRIPTION, worker=worker or worker_name("here"), **settings)


def told(accuracy: float = 0.5, **more: Any) -> FrozenTrial:
    return create_trial(values=[accuracy, 1.0], params=PROPOSED.params, distributions=PROPOSED.distributions, **more)


def states(storage: str) -> list[str]:
    return [trial.state.name for trial in trials_of(storage, "study")]


def claim_one(ledger: Ledger, wanted: int = 10) -> Claim:
    (claim,) = ledger.claim([PROPOSED], wanted)
    assert claim is not None
    return claim


def all_at_once(workers: int, storage: str, action: Callable[[Ledger], Any]) -> list[Any]:
    """What ledgers, opened separately, give when they all act at the same time."""
    ready = threading.Barrier(workers)

    def act(ledger: Ledger) -> Any:
        ready.wait()
        return action(ledger)

    with ExitStack() as living, ThreadPoolExecutor(workers) as pool:
        ledgers = [living.enter_context(open_ledger(storage, worker_name(f"run{i}"))) for i in range(workers)]
        return list(pool.map(act, ledgers))


def test_a_claim_is_there_whole_and_finished_with_its_constraints(storage: str) -> None:
    ledger = open_ledger(storage)
    claim = claim_one(ledger)
    (running,) = trials_of(storage, "study")
    assert (running.state.name, running.params, running.user_attrs["worker"]) == ("RUNNING", PROPOSED.params, ledger.worker)
    ledger.finish(claim, told(constraints={"macs <= 5": -0.25}))
    (finished,) = trials_of(storage, "study")
    assert (finished.state.name, finished.values, finished.constraints) == ("COMPLETE", [0.5, 1.0], {"macs <= 5": -0.25})
    assert ledger.look().fresh == []
    assert [trial.number for trial in open_ledger(storage).look().fresh] == [0]


def test_a_new_storage_may_be_opened_by_several_at_once(storage: str) -> None:
    ready = threading.Barrier(4)

    def open_new(run: int) -> Claim:
        ready.wait()
        with open_ledger(storage, worker_name(f"run{run}")) as ledger:
            return claim_one(ledger)

    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(open_new, range(4)))
    assert sorted(claim.trial.number for claim in claims) == [0, 1, 2, 3]


def test_no_more_trials_are_claimed_than_wanted(storage: str) -> None:
    open_ledger(storage)
    claims = all_at_once(4, storage, lambda ledger: ledger.claim([PROPOSED] * 3, 7))
    assert sum(claim is not None for each in claims for claim in each) == 7
    assert sorted(states(storage)) == ["FAIL"] * 5 + ["RUNNING"] * 7


def test_a_waiting_trial_is_given_to_one(storage: str) -> None:
    ledger = open_ledger(storage)
    for _ in range(5):
        ledger.give_up([claim_one(ledger)], again=True)

    def take(own: Ledger) -> Claim | None:
        own.look()
        return own.take(10)

    for _ in range(5):
        takers = all_at_once(4, storage, take)
        numbers = [claim.trial.number for claim in takers if claim is not None]
        assert len(numbers) == len(set(numbers))
        ledger.give_up([claim for claim in takers if claim is not None], again=False)
    assert set(states(storage)) <= {"FAIL", "WAITING"}


def test_a_trial_is_finished_once(storage: str) -> None:
    ledger = open_ledger(storage)
    claim = claim_one(ledger)
    all_at_once(4, storage, lambda own: own.finish(claim, told(accuracy=float(own.worker[-1]) / 10)))
    (trial,) = trials_of(storage, "study")
    before = trial.values
    ledger.finish(claim, told(accuracy=0.9))
    ledger.give_up([claim], again=True)
    (trial,) = trials_of(storage, "study")
    assert (trial.state.name, trial.values) == ("COMPLETE", before)


def test_the_first_living_worker_by_name_lets_the_trials_of_the_dead_wait(storage: str) -> None:
    dead = open_ledger(storage, worker_name("dead", NO_PROCESS))
    claim = claim_one(dead)
    with open_ledger(storage, worker_name("a")) as first, open_ledger(storage, worker_name("b")) as second:
        second.look()
        assert second.take(10) is None
        assert states(storage) == ["RUNNING"]
        first.look()
        taken = first.take(10)
        assert taken is not None
        assert taken.trial.number == claim.trial.number
        assert taken.trial.user_attrs == {"worker": first.worker, "attempts": 2}
        dead.finish(claim, told(accuracy=0.1))  # it was not as dead as all that
        first.finish(taken, told(accuracy=0.2))
    (trial,) = trials_of(storage, "study")
    assert trial.values == [0.1, 1.0]


def test_a_dead_workers_surplus_fails(storage: str) -> None:
    claim_one(open_ledger(storage, worker_name("dead", NO_PROCESS)), wanted=10)
    claim_one(open_ledger(storage, worker_name("dead", NO_PROCESS)), wanted=10)
    with open_ledger(storage) as ledger:
        ledger.look()
        assert ledger.take(1) is not None
    assert states(storage) == ["RUNNING", "FAIL"]


def test_a_trial_that_three_workers_died_on_fails(storage: str) -> None:
    claim_one(open_ledger(storage, worker_name("dead", NO_PROCESS)))
    for attempt in range(3):
        with open_ledger(storage, worker_name(f"dead{attempt}", NO_PROCESS)) as ledger:
            ledger.look()
            assert (ledger.take(10) is None) == (attempt == 2)
    assert states(storage) == ["FAIL"]


def test_what_users_put_into_a_study_for_optuna_is_left_to_it(storage: str) -> None:
    ledger = open_ledger(storage)
    optuna.load_study(study_name="study", storage=open_storage(storage).storage).enqueue_trial({"gene0": 1})
    assert ledger.look().counted == 0
    assert ledger.take(10) is None
    assert claim_one(ledger, wanted=1).trial.number == 1


def test_workers_say_that_they_live_while_they_do(storage: str) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(open_ledger(storage, worker_name("a"), patience_s=0.6))
        assert not first.strangers()
        with open_ledger(storage, worker_name("b"), patience_s=0.6):
            time.sleep(1)
            assert first.strangers()
        assert not first.strangers()


def test_a_worker_is_alive_while_it_beats_and_its_process_is_there() -> None:
    here, gone = worker_name("run"), worker_name("run", NO_PROCESS)
    elsewhere = f"other-machine/{NO_PROCESS}/run"
    assert [is_alive(worker, 1, patience_s=60) for worker in (here, gone, elsewhere)] == [True, False, True]
    assert [is_alive(worker, 61, patience_s=60) for worker in (here, gone, elsewhere)] == [False] * 3


# -- storages ----------------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_half_written_goes(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    claim_one(open_ledger(storage))
    with Path(storage).open("a") as file:
        file.write('{"op_code":4,"study_id":0,"worker')
    ledger = open_ledger(storage)
    assert ledger.look().counted == 1
    claim_one(ledger)
    assert states(storage) == ["RUNNING"] * 2


@pytest.mark.parametrize(
    "storage",
    [
        "sqlite:////nowhere/at/all/study.db",
        "nonsense://",
        "nonsense://user:secret@host/x",
        "redis://user:secret@host/x",
        "/nowhere/study.journal",
        "grpc://nowhere",
        "postgresql://user:secret@localhost:1/study",
        "postgresql://user:s%20cret@localhost:1/study?sslpassword=secret",
        "postgresql+nodriver://user:secret@localhost:1/study",
        "postgresql://user:secret@localhost:port/study",
    ],
)
def test_a_storage_that_cannot_be_used_is_one_sentence_without_its_password(storage: str) -> None:
    with pytest.raises(SearchError, match="storage of a study") as caught:
        run_study(fake_problem(), seed=0, effort=Effort(trials=2, evaluations=0), storage=storage)
    told = str(caught.value)
    assert "\n" not in told
    assert "cret" not in told + repr(caught.value.__cause__)


def test_a_password_is_hidden_in_what_is_shown() -> None:
    assert without_password("postgresql://me:a%2Fb@host/x?sslpassword=a%2Fb") == "postgresql://me:***@host/x?sslpassword=***"
    assert without_password("sqlite:///study.db") == "sqlite:///study.db"
    assert without_password("folder/study.journal") == "folder/study.journal"


def test_a_proxy_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("search.study.storages._ANSWER_S", 0.2)
    with pytest.warns(optuna.exceptions.ExperimentalWarning), pytest.raises(SearchError, match="'grpc://localhost:1' cannot be"):
        open_storage("grpc://localhost:1")


@pytest.mark.parametrize(
    ("storage", "module", "extra"), [("grpc://localhost:1", "grpc", "grpc"), ("postgresql://localhost/x", "psycopg", "postgresql")]
)
def test_a_missing_driver_is_told_with_the_extra_that_has_it(
    storage: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=f"extra '{extra}'"):
        open_storage(storage)
