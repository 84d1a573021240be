"""Studies that servers keep: PostgreSQL, and Optuna's gRPC proxy in front of it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from search.study import Effort, run_study, run_workers
from tests.cli.files import make_places
from tests.search.fakes import slow_problem
from tests.search.killing import assert_whole, kill_one, trials_of

pytestmark = pytest.mark.slow

PASSWORD = "s3cret/of the test"


def program(name: str) -> str:
    """A program of PostgreSQL, which Debian keeps off the path."""
    found = shutil.which(name) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed")
    return str(found)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a server of its own, without a database by that name before."""
    pytest.importorskip("psycopg")
    initdb, postgres = program("initdb"), program("postgres")
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # as which the server refuses to run
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user 'nobody'")
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="ofa-postgresql-") as folder:
        secret = Path(folder) / "password"
        secret.write_text(PASSWORD)
        if as_user:
            for path in (folder, secret):
                os.chown(path, as_user["user"], as_user["group"])
        data, port = f"{folder}/data", free_port()
        settings: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_user}
        arguments = ["--auth=scram-sha-256", f"--pwfile={secret}", "--username=ofa", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([initdb, "-D", data, *arguments], check=True, **settings)
        server = subprocess.Popen([postgres, "-D", data, "-p", str(port), "-k", folder, "-F"], **settings)
        try:
            answers("localhost", port)
            yield f"postgresql://ofa:s3cret%2Fof%20the%20test@localhost:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # its "fast shutdown"
            server.wait(timeout=30)


@pytest.fixture(scope="module")
def proxy(postgresql: str) -> Iterator[str]:
    """Optuna's own server in front of the database."""
    pytest.importorskip("grpc")
    port = free_port()
    code = (
        "from optuna.storages import get_storage, run_grpc_proxy_server; "
        f"run_grpc_proxy_server(get_storage({postgresql!r}), host='localhost', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        answers("localhost", port)
        yield f"grpc://localhost:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def answers(host: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"no server answers at port {port}")


@pytest.fixture(params=["postgresql", "proxy"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_one_of_three_is_killed_at_a_servers_study(storage: str, tmp_path: Path) -> None:
    log, killed = tmp_path / "log", list[int]()
    threading.Thread(target=partial(kill_one, log, after=6, killed=killed), daemon=True).start()
    name = f"killed {storage.partition(':')[0]}"
    effort = Effort(trials=20, evaluations=0)
    front = run_workers(partial(slow_problem, str(log), 0.15), workers=3, seed=0, effort=effort, storage=storage, name=name, grace_s=3)
    assert front.info.study["died"] == 1
    assert PASSWORD not in str(front.info)
    assert_whole(trials_of(storage, name), 20, log, workers=3, killed=killed)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_servers_study_is_resumed_with_what_it_knows(storage: str, tmp_path: Path) -> None:
    log, name = tmp_path / "log", f"resumed {storage.partition(':')[0]}"
    for trials in (5, 10):
        front = run_study(slow_problem(str(log), 0), seed=0, effort=Effort(trials=trials, evaluations=0), storage=storage, name=name)
        assert front.info.study["trials"] == trials
    rows = [line.split()[2] for line in log.read_text().splitlines()]
    assert len(rows) == 2 * len(set(rows))  # begun and ended once each
    evolved = tmp_path / "evolved"
    run_study(slow_problem(str(evolved), 0), seed=0, effort=Effort(trials=30, evaluations=100), storage=storage, name=name)
    assert_whole(trials_of(storage, name), 30, log)


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a search by two workers, but for its storage and its front."""
    places = make_places(tmp_path_factory.mktemp("places"))
    files = ["--predictor", str(places["predictor"]), "--table", str(places["table"])]
    return ["search", *files, "--trials", "6", "--evaluations", "0", "--workers", "2", "--study", "of the command"]


def shows(secret: set[str], pids: Iterable[str]) -> list[str]:
    """The processes whose arguments hold the secret."""
    found = []
    for pid in pids:
        with suppress(OSError):
            found += [pid for form in secret if form in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")]
    return found


@pytest.mark.parametrize("way", ["option", "environment", "query", "passfile", "wrong"])
def test_a_password_is_told_nowhere(postgresql: str, searching: list[str], way: str, tmp_path: Path) -> None:
    """Not by any process while it works, not in its output, not in any file; and the server takes it in every form."""
    address, secret = urlsplit(postgresql), {PASSWORD, quote(PASSWORD, safe=""), "s3cret"}
    place = f"{address.hostname}:{address.port}/postgres"
    storage, environment = postgresql, {**os.environ, "OFA_TRACEBACK": "1", "TMPDIR": str(tmp_path)}
    if way == "query":
        storage = f"postgresql://{place}?user=ofa&password={quote(PASSWORD, safe='')}"
    elif way == "wrong":
        storage = postgresql.replace("s3cret", "s3cret-of-another")
    elif way == "passfile":
        storage, passfile = f"postgresql://ofa@{place}", tmp_path.parent / f"{tmp_path.name}.pgpass"
        passfile.touch(mode=0o600)
        passfile.write_text(f"*:*:*:ofa:{PASSWORD}\n")
        environment["PGPASSFILE"] = str(passfile)
    words = [sys.executable, "-m", "ofa", *searching, "-o", str(tmp_path / "front"), "--json"]
    if way in ("environment", "passfile"):
        environment["OFA_STORAGE"] = storage
    else:
        words += ["--storage", storage]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        begun_again, deadline = Path(f"/proc/{process.pid}/cmdline"), time.monotonic() + 60
        while "--storage" in words and "***" not in begun_again.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen: list[str] = []
        while process.poll() is None:
            seen += shows(secret, (each for each in os.listdir("/proc") if each.isdigit()))
            time.sleep(0.05)
        assert process.stdout is not None
        assert process.stderr is not None
        told = process.stdout.read() + process.stderr.read()
    assert process.returncode == (way == "wrong"), told
    assert seen == []
    assert not [form for form in secret if form in told]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not [form for form in secret if form.encode() in path.read_bytes()], path
    if way == "wrong":
        assert "authentication failed" in told
        assert "postgresql://ofa:***@" in told
    else:
        assert json.loads(told[told.index("{") : told.rindex("}") + 1])["study"]["trials"] >= 6
