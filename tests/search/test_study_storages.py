"""The storages that studies are kept by."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from ofa.errors import MissingExtraError, SearchError
from ofa.storage_url import StorageUrl
from search.study import Effort, run_study
from search.study.storages import open_storage
from tests.search.fakes import SMALL, fake_problem
from tests.search.killing import trials_of

FEW = Effort(trials=3, evaluations=0)


def make_study(storage: str, number: int) -> None:
    opened = open_storage(StorageUrl(storage))
    try:
        optuna.create_study(storage=opened.storage, study_name=str(number))
    finally:
        opened.close()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # threads share Python's filters of warnings
@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/study.journal"])
def test_a_new_storage_may_be_opened_by_several_at_once(storage: str, tmp_path: Path) -> None:
    ready, text = threading.Barrier(4), storage.format(tmp_path)

    def open_new(number: int) -> None:
        ready.wait()
        make_study(text, number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_new, range(4)))
    assert all(trials_of(text, str(number)) == [] for number in range(4))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # threads share Python's filters of warnings
def test_a_waiting_trial_is_given_to_one(tmp_path: Path) -> None:
    """In SQLite, too, which does not know the lock of a row that Optuna relies on."""
    text = f"sqlite:///{tmp_path}/study.db"
    make_study(text, 0)
    kept = open_storage(StorageUrl(text))
    queue = optuna.load_study(study_name="0", storage=kept.storage)
    for number in range(8):
        queue.enqueue_trial({"gene": number})
    kept.close()
    ready = threading.Barrier(4)

    def take(_: int) -> list[int]:
        opened = open_storage(StorageUrl(text))
        study = optuna.load_study(study_name="0", storage=opened.storage)
        taken: list[int] = []
        ready.wait()
        study.optimize(lambda trial: taken.append(trial.suggest_int("gene", 0, 99)) or 0.0, n_trials=2)
        opened.close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [gene for each in pool.map(take, range(4)) for gene in each]
    assert sorted(taken) == list(range(8))


def test_what_a_killed_writer_left_half_written_goes(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(fake_problem(), seed=0, effort=FEW, storage=storage)
    with Path(storage).open("a") as file:
        file.write('{"op_code":4,"study_id":0,"worker')
    run_study(fake_problem(), seed=0, effort=Effort(trials=5, evaluations=0), storage=storage)
    assert [trial.state.name for trial in trials_of(storage, SMALL.name)].count("COMPLETE") == 5


@pytest.mark.parametrize(
    "storage",
    ["sqlite:////nowhere/at/all/study.db", "nonsense://", "/nowhere/study.journal", "grpc://nowhere", "mysql://localhost:1/study"],
)
def test_a_storage_that_cannot_be_used_is_one_sentence(storage: str) -> None:
    with pytest.raises(SearchError, match="storage of a study") as caught:
        run_study(fake_problem(), seed=0, effort=FEW, storage=storage)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("search.study.storages._ANSWER_S", 0.2)
    with pytest.warns(optuna.exceptions.ExperimentalWarning), pytest.raises(SearchError, match="'grpc://localhost:1' cannot be"):
        open_storage(StorageUrl("grpc://localhost:1"))


@pytest.mark.parametrize(
    ("storage", "module", "extra"), [("grpc://localhost:1", "grpc", "grpc"), ("postgresql://localhost/x", "psycopg", "postgresql")]
)
def test_a_missing_driver_is_told_with_the_extra_that_has_it(
    storage: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=f"extra '{extra}'"):
        open_storage(StorageUrl(storage))


def test_a_damaged_line_of_a_journal_is_named(tmp_path: Path) -> None:
    """Also where it is the last one, which Optuna would leave out, and where it is still JSON."""
    storage = tmp_path / "study.journal"
    run_study(fake_problem(), seed=0, effort=FEW, storage=str(storage))
    lines = storage.read_bytes().splitlines(keepends=True)
    for number in (1, 7, len(lines)):
        damaged = lines[number - 1][:60] + bytes([lines[number - 1][60] ^ 1]) + lines[number - 1][61:]
        storage.write_bytes(b"".join([*lines[: number - 1], damaged, *lines[number:]]))
        with pytest.raises(SearchError, match=rf"a study must be as it was written, but line {number} of "):
            run_study(fake_problem(), seed=0, effort=FEW, storage=str(storage))
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_a_journal_of_optunas_own_goes_on(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    run_study(fake_problem(), seed=0, effort=FEW, storage=storage)
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    study = optuna.load_study(study_name=SMALL.name, storage=backend)
    study.set_user_attr("note", "by another program")
    run_study(fake_problem(), seed=0, effort=Effort(trials=5, evaluations=0), storage=storage)
    assert [trial.state.name for trial in trials_of(storage, SMALL.name)].count("COMPLETE") == 5
