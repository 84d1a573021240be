"""A password of a storage is used to connect and told nowhere: in no text, exception, front, file, log or list of processes."""

from __future__ import annotations

import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from ofa.cli import secrets
from ofa.errors import MissingExtraError, SearchError
from ofa.storage_url import StorageUrl, without_passwords
from search.study import Effort, run_study
from search.study.storages import open_storage
from tests.search.fakes import fake_problem

FEW = Effort(trials=3, evaluations=0)
SECRETS = ("hunter2", "s3cr/t", "p@ss:w?rd", "a'b\\c", "two words")
"""None of them is part of any message that is not about it."""

FORMS = (
    "postgresql://me:{0}@localhost:1/db",
    "POSTGRESQL+PSYCOPG://me:{0}@localhost:1/db",
    "postgresql://:{0}@localhost:1/db",
    "postgresql://me:{0}@localhost:1,127.0.0.1:2/db",
    "postgresql://me:{0}@[::1]:1/db",
    "postgresql://me:{0}@localhost:port/db",
    "postgresql://me:{0}",
    "postgresql:///db?host=localhost&port=1&user=me&password={0}",
    "postgresql://localhost:1/db?PassWord={0}&sslmode=disable",
    "postgresql://me@localhost:1/db?sslpassword={0}",
    "postgresql://me@localhost:1/db?options=-c%20own.token%3D{0}",
    "postgresql://me@localhost:1/db?passcode={0}",
    "postgresql://me@localhost:1/host=localhost%20password={0}",
    "postgresql+nodriver://me:{0}@localhost:1/db",
    "postgresql:/me:{0}@localhost:1/db",
    "postgres:me:{0}@localhost:1/db",
    "host=localhost port=1 dbname=db user=me password={0}",
    "host=localhost password = '{0}'",
    "mysql://me:{0}@localhost:1/db",
    "mysql+pymysql://localhost:1/db?passwd={0}",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BUID%3Dsa%3BPWD%3D{0}%3B",
    "DRIVER={{X}};SERVER=localhost;UID=sa;PWD={0}",
    "oracle+oracledb://me:{0}@localhost:1/?service_name=db",
    "redis://:{0}@localhost:1/0",
    "grpc://me:{0}@localhost:1",
    "nonsense://me:{0}@localhost/x",
)


def quoted(secret: str, how: str) -> str:
    """As it may be typed in a URL."""
    return {"plain": secret, "percent": quote(secret, safe=""), "plus": quote_plus(secret), "lower": quote(secret, safe="").lower()}[how]


def pieces(secret: str) -> set[str]:
    """What would tell of it: all of it, in any writing, and its longest parts."""
    parts = {part for part in re.split(r"[^\w]", secret) if len(part) > 2}
    return {secret, *parts, *(quoted(secret, how) for how in ("percent", "plus", "lower"))}


def assert_without(text: str, secret: str) -> None:
    assert not [piece for piece in pieces(secret) if piece in text]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["plain", "percent", "plus", "lower"])
def test_a_storage_is_shown_without_its_secret(form: str, how: str) -> None:
    for secret in SECRETS:
        typed = form.format(quoted(secret, how))
        storage = StorageUrl(typed)
        assert storage.has_secret
        assert storage.reveal() == typed
        for shown in (str(storage), repr(storage), f"{storage}", repr({"storage": storage})):
            assert_without(shown, secret)
        # Drivers quote what they were given, decoded or not, and in quotes of their own.
        for told in (typed, repr(typed), secret, repr(secret), quoted(secret, how)):
            assert_without(storage.hide(f"could not connect: {told}"), secret)


@pytest.mark.parametrize(
    "text",
    [
        *("sqlite:///study.db", "sqlite:////home/me@here/study.db", "sqlite://", "folder/study.journal", "./a@b:c/study.journal"),
        *("postgresql://me@host/db", "postgresql://host:5432,other:5433/db?target_session_attrs=any", "postgresql:///db?host=/run/pg"),
        *("grpc://localhost:13000", "C:\\me@here\\study.journal", "postgresql://[::1]:5432/db"),
        "postgresql://me@host/db?passfile=/home/me/pass&sslmode=require",
    ],
)
def test_a_storage_without_a_secret_is_shown_as_it_is(text: str) -> None:
    assert str(StorageUrl(text)) == text
    assert not StorageUrl(text).has_secret
    assert StorageUrl(text).hide(f"no such file: {text}") == f"no such file: {text}"


def chain(error: BaseException | None) -> list[BaseException]:
    """An exception with all that is kept in it."""
    return [] if error is None else [error, *chain(error.__cause__), *chain(error.__context__)]


@pytest.mark.parametrize("form", FORMS)
def test_a_storage_that_cannot_be_used_is_one_sentence_without_its_secret(
    form: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("search.study.storages._ANSWER_S", 0.1)
    for secret in SECRETS[:3]:
        with caplog.at_level(logging.DEBUG), pytest.raises((SearchError, MissingExtraError)) as caught:
            run_study(fake_problem(), seed=0, effort=FEW, storage=form.format(quoted(secret, "plain")))
        assert "\n" not in str(caught.value)
        assert_without("".join(map(str, [*chain(caught.value), *map(repr, chain(caught.value)), caplog.text])), secret)
        assert list(tmp_path.iterdir()) == []  # such as a journal file of that name


def test_what_is_hidden_is_not_taken_for_the_password() -> None:
    with pytest.raises(SearchError, match="must be given"):
        open_storage(StorageUrl(str(StorageUrl("postgresql://me:hunter2@localhost:1/db"))))


def test_workers_are_told_in_full() -> None:
    storage = StorageUrl("postgresql://me:hunter2@localhost:1/db")
    assert pickle.loads(pickle.dumps(storage)).reveal() == storage.reveal()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see postgresql://me:hunter2@host/db, and", "see postgresql://me:***@host/db, and"),
        ("'grpc://me:p@ss@host:1'", "'grpc://me:***@host:1'"),
        ("https://host/a?token=hunter2&b=1", "https://host/a?token=***&b=1"),
        ("https://host:80/a and me@host", "https://host:80/a and me@host"),
    ],
)
def test_urls_in_any_text_lose_their_passwords(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


# -- the command line -----------------------------------------------------------------------------------------------------


URL = "postgresql://me:hunter2@localhost:1/db"


def test_the_environment_names_a_storage_and_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secrets.STORAGE_VARIABLE, URL)
    assert secrets.take_storage(None) == StorageUrl(URL)
    assert secrets.STORAGE_VARIABLE not in os.environ
    assert secrets.take_storage(None) is None
    monkeypatch.setenv(secrets.STORAGE_VARIABLE, URL)
    assert secrets.take_storage("study.journal") == StorageUrl("study.journal")
    monkeypatch.setenv(secrets.STORAGE_VARIABLE, URL)
    assert secrets.take_storage(str(StorageUrl(URL))) == StorageUrl(URL)


@pytest.mark.parametrize(
    "words", [["--storage", URL, "-o", "f"], [f"--storage={URL}", "-o", "f"], ["--storage", URL, "--storage", f"{URL}2"]]
)
def test_a_front_notes_the_command_without_the_password(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ofa", "search", *words])
    assert "hunter2" not in secrets.command_without_secrets()
    assert "postgresql://me:***@localhost:1/db" in secrets.command_without_secrets()


_WAITS = """
import sys, time
from ofa.cli import main
main.build_app = lambda: lambda prog_name: (print("ready", flush=True), time.sleep(60))
main.run()
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="lists of processes are read as Linux has them")
@pytest.mark.parametrize("words", [["--storage", URL], [f"--storage={URL}"]])
def test_the_list_of_processes_never_shows_it_once_the_command_is_at_work(words: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITS, "search", *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            shown = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
            assert "hunter2" not in "".join(shown)
            assert shown[shown.index("search") + 1 :] == [word.replace("hunter2", "***") for word in words] + [""]
            assert f"{secrets.STORAGE_VARIABLE}={URL}" in Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        finally:
            process.kill()
