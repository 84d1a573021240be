"""Lost connections finish by themselves: against a real OpenSSH server, behind a proxy that cuts, stops and slows what passes it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import Device, Fake, Ssh, TimingPolicy, time_models
from devices.measure import Failure, measure
from devices.runtimes import Option, Settings
from devices.timing import Timing
from devices.transports import Connection, LineLostError, bootstrap
from devices.transports.archive import agent_archive
from devices.transports.ssh import _is_line_lost
from latency_tables import build_table
from latency_tables.journal import Journal
from ofa.errors import DeviceError
from ofa.families import get_space
from tests.devices.conftest import SshServer, eventually, ssh_server  # noqa: F401
from tests.devices.models import save_conv

POLICY = TimingPolicy(min_rounds=2, max_rounds=2, sample_ms=0.2, group_size=2)


class Line:
    """A TCP proxy between ssh and its server.

    Attributes:
        connections: how many were made.
        seen: bytes that came from the server over the connection that was made last.
    """

    def __init__(self, port: int) -> None:
        self._target, self._server = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.connections = 0
        self.seen = 0
        self.refuses = self.stopped = False
        self.bytes_per_s: int | None = None
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset all connections."""
        for pair in self._open:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    end.shutdown(socket.SHUT_RDWR)
        self._open = []

    def close(self) -> None:
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self.refuses:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self.connections, self.seen = self.connections + 1, 0
            self._open.append((near, far))
            threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in selector.select(timeout=1):
                    while self.stopped:
                        time.sleep(0.02)
                    rate = self.bytes_per_s
                    content = key.fileobj.recv(1 << 16 if rate is None else max(1, rate // 20))  # type: ignore[union-attr]
                    if not content:
                        return
                    if rate is not None:
                        time.sleep(len(content) / rate)
                    key.data.sendall(content)
                    if key.fileobj is far:
                        self.seen += len(content)


@pytest.fixture
def line(ssh_server: SshServer) -> Iterator[Line]:  # noqa: F811
    proxy = Line(ssh_server.port)
    # The host is known under the proxy's port as well.
    known = ssh_server.known_hosts.read_text()
    ssh_server.known_hosts.write_text(known + known.replace(f":{ssh_server.port} ", f":{proxy.port} "))
    yield proxy
    proxy.close()


def there(address: Ssh, runtime: str = "fake", **options: Option) -> Device:
    return Device(name="there", runtime=runtime, address=address, options=tuple(options.items()))


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {f"{layers} layers": save_conv(tmp_path / f"{layers}.onnx", layers=layers) for layers in range(1, 7)}


def expected(models: dict[str, Path], *, pause_ms: float = 0.0) -> dict[str, float]:
    device = Device(name="here", runtime="fake", pause_ms=pause_ms, address=Fake())
    return medians(measure(device, models, rng=np.random.default_rng(0), policy=POLICY))


def medians(found: Iterator[tuple[str, Timing | Failure]]) -> dict[str, float]:
    return {key: outcome.median_ms for key, outcome in found if isinstance(outcome, Timing)}


def no_leftovers(server: SshServer) -> bool:
    names = [path.name for path in (server.folder / "remote").iterdir()]
    return not server.agents() and all(name.endswith((".onnx", ".pyz")) for name in names)


@pytest.mark.parametrize(
    ("networks", "words", "between"),
    [(3, ["loading"], [1]), pytest.param(6, ["loading", "timing", "warming up"], [2, 4], marks=pytest.mark.slow)],
)
def test_a_line_that_is_cut_in_a_group_and_between_groups(
    ssh_server: SshServer,  # noqa: F811
    line: Line,
    models: dict[str, Path],
    networks: int,
    words: list[str],
    between: list[int],
    eventually: Callable[[Callable[[], bool]], bool],  # noqa: F811
) -> None:
    """What is measured is given once, the rest on a new connection, and the numbers are those of a line that holds."""
    models = dict(list(models.items())[:networks])
    told, cuts = [], list(words)

    def progress(done: int, total: int, text: str = "") -> None:
        told.append(text)
        if cuts and cuts[0] in text and "again" not in text:
            del cuts[0]
            line.cut()

    device, found = replace(there(ssh_server.address(port=line.port, retries=4)), pause_ms=30.0), {}
    for key, outcome in measure(device, models, rng=np.random.default_rng(0), policy=POLICY, progress=progress):
        assert key not in found
        found[key] = outcome
        if len(found) in between:  # a group is done: the next begins on a line that is cut
            line.cut()
    assert medians(iter(found.items())) == expected(models, pause_ms=30.0)
    lost = [text for text in told if "was lost while" in text]
    assert line.connections - 1 == len(lost) == len(words) + len(between)
    assert all(re.search(r"; trying again in 0\.\d s \(\d of 4\)$", text) for text in lost)
    # The device may have said more before the cut was noticed: a loss names what it said last.
    assert sum(f"it was lost while {last}" in text for last, text in itertools.pairwise(told)) >= len(words)
    assert eventually(lambda: no_leftovers(ssh_server))


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_is_cut_again_and_again(
    ssh_server: SshServer,  # noqa: F811
    line: Line,
    models: dict[str, Path],
    seed: int,
    record_property: Callable[[str, Any], None],
    eventually: Callable[[Callable[[], bool]], bool],  # noqa: F811
) -> None:
    """At any moment: while it is made, while files are sent, between requests, and in the middle of lines."""
    rng, done = np.random.default_rng(seed), threading.Event()

    def cut() -> None:
        for _ in range(20):
            if done.wait(float(rng.uniform(0.05, 1.5))):
                return
            line.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    device = there(ssh_server.address(port=line.port, retries=30, backoff_s=0.01))
    found = list(measure(device, models, rng=np.random.default_rng(0), policy=POLICY))
    done.set()
    record_property("figures", {"what": "cut connections", "tried": line.connections - 1, "networks": len(found)})
    cutter.join()
    assert len(found) == len(models)
    assert medians(iter(found)) == expected(models)
    assert eventually(lambda: no_leftovers(ssh_server))


@pytest.mark.slow
def test_a_line_that_stays_cut_ends_in_one_sentence_that_says_what_is_kept(
    ssh_server: SshServer,  # noqa: F811
    line: Line,
    models: dict[str, Path],
) -> None:
    found: list[str] = []

    def work() -> None:
        for key, _ in measure(there(ssh_server.address(port=line.port)), models, rng=np.random.default_rng(0), policy=POLICY):
            found.append(key)
            if len(found) == 2:
                line.refuses = True
                line.cut()

    with pytest.raises(DeviceError) as caught:
        work()
    words = str(caught.value)
    assert "the connection was lost while starting" in words
    assert "3 times in a row on device 'there'; 2 of 6 networks are timed; check that it is on and reachable, and run this again" in words
    assert words.isprintable()
    assert len(found) == 2


@pytest.mark.slow
def test_a_table_keeps_its_blocks_and_says_where(ssh_server: SshServer, line: Line, tmp_path: Path) -> None:  # noqa: F811
    space = get_space("ofa-proxyless-tiny").restrict(kernel=[3], expand=[3])
    device = there(ssh_server.address(port=line.port, retries=0))
    path = tmp_path / "table.parquet"

    def build(*, resume: bool, until: float) -> int:
        def progress(done: int, total: int, text: str = "") -> None:
            if done > until * total:
                line.refuses = True
                line.cut()

        rng = np.random.default_rng(0)
        with Journal(path, resume=resume) as journal:
            return len(build_table(space, device, resolutions=[16], rng=rng, policy=POLICY, progress=progress, journal=journal))

    with pytest.raises(DeviceError, match=r"\d blocks are kept in '.*table\.parquet\.journal', add --resume to continue") as caught:
        build(resume=False, until=0.5)
    assert str(caught.value).isprintable()
    line.refuses = False
    assert build(resume=True, until=2.0) > 0


@pytest.mark.parametrize("problem", ["key", "host"])
def test_what_will_not_change_is_not_tried_again(
    ssh_server: SshServer,  # noqa: F811
    line: Line,
    models: dict[str, Path],
    problem: str,
) -> None:
    if problem == "key":
        (ssh_server.folder / "authorized").write_text("")
    if problem == "host":
        ssh_server.known_hosts.write_text("")
    device = there(ssh_server.address(port=line.port, backoff_s=60))
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"must start on '.*', but it died with status 255 while starting"):
        time_models(device, models, rng=np.random.default_rng(0), policy=POLICY)
    assert time.monotonic() - start < 20
    assert line.connections <= 1


@pytest.mark.slow
def test_a_connection_whose_server_is_killed_or_stopped_is_made_again(
    ssh_server: SshServer,  # noqa: F811
    models: dict[str, Path],
    eventually: Callable[[Callable[[], bool]], bool],  # noqa: F811
) -> None:
    """The server's process of this connection is killed in the middle of one group, and stopped in that of another."""
    device, acts = there(ssh_server.address()), iter([signal.SIGKILL, signal.SIGSTOP])
    stopped: list[int] = []

    def progress(done: int, total: int, text: str = "") -> None:
        if "loading" in text and (act := next(acts, None)) is not None:
            for child in children(ssh_server.process.pid):
                for each in (*children(child), child):  # with separated privileges it has one of its own
                    with contextlib.suppress(ProcessLookupError):  # of a connection that has just ended
                        os.kill(each, act)
                        stopped.append(each)

    found = measure(device, models, rng=np.random.default_rng(0), policy=POLICY, progress=progress, silence_limit_s=5)
    try:
        assert medians(found) == expected(models)
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: no_leftovers(ssh_server))


@pytest.mark.slow
def test_a_line_that_takes_and_gives_nothing_is_given_up(
    ssh_server: SshServer,  # noqa: F811
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of a file that is being sent, whose rest waits in full pipes."""
    monkeypatch.setattr("devices.transports.ssh._ANSWER_LIMIT_S", 3.0)
    path = tmp_path / "large.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(6_000_000))
    address = ssh_server.address(port=line.port)
    agent = address.start()
    threading.Timer(1.0, lambda: setattr(line, "stopped", True)).start()
    line.bytes_per_s = 1_000_000
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"must answer within 3 s, but '127\.0\.0\.1' was silent"):
        address.bring(agent, {"large": path})
    assert time.monotonic() - start < 15
    agent.close()
    line.stopped = False


@pytest.mark.slow
def test_a_slow_line_is_slow_and_not_lost(ssh_server: SshServer, line: Line, models: dict[str, Path]) -> None:  # noqa: F811
    line.bytes_per_s = 30_000
    found = measure(there(ssh_server.address(port=line.port)), models, rng=np.random.default_rng(0), policy=POLICY, silence_limit_s=60)
    assert medians(found) == expected(models)
    assert line.connections == 1


@pytest.mark.slow
@pytest.mark.parametrize("holds", [False, True])
def test_an_agent_ends_by_itself_whatever_it_is_doing(
    ssh_server: SshServer,  # noqa: F811
    line: Line,
    models: dict[str, Path],
    holds: bool,
    eventually: Callable[[Callable[[], bool]], bool],  # noqa: F811
) -> None:
    """Also one in which no thread runs any more, as in a library that hangs and holds Python's lock."""
    device = there(ssh_server.address(port=line.port, retries=0), failure="hang")
    agent = device.address.start()
    request = {"op": "time", "settings": device.settings.to_json(), "policy": {}, "seed": 0}
    networks = device.address.bring(agent, models)

    def ask() -> None:
        with contextlib.suppress(DeviceError):
            agent.request({**request, "networks": networks}, on_note=lambda note: None, silence_limit_s=60)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert eventually(lambda: len(ssh_server.agents()) == 1)
    for pid in ssh_server.agents() if holds else ():
        os.kill(pid, signal.SIGSTOP)
    line.cut()
    assert eventually(lambda: no_leftovers(ssh_server))
    agent.close()
    thread.join(timeout=10)


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat_s", [0.2, None])
def test_an_agent_that_hears_nothing_ends(tmp_path: Path, heartbeat_s: float | None) -> None:
    """The near end may vanish without a word, as when its network does: then no connection is ever closed."""
    source = Path(bootstrap.__file__).read_text().replace("_SILENCE_S = 90.0", "_SILENCE_S = 1.0")
    head = json.dumps({"folder": str(tmp_path / "remote"), "archive": base64.b64encode(agent_archive()).decode()})
    command = [sys.executable, "-I", "-c", source]
    with Connection(command, place="the test", greeting=head, line_lost=_is_line_lost, heartbeat_s=heartbeat_s) as agent:
        request = {"op": "describe", "settings": Settings(runtime="fake").to_json()}
        agent.request(request, on_note=lambda note: None, silence_limit_s=20)
        time.sleep(5)
        if heartbeat_s is not None:
            assert agent.request(request, on_note=lambda note: None, silence_limit_s=20)["cores"] >= 1
            return
        with pytest.raises(LineLostError, match="it was lost while answering 'describe'"):
            agent.request(request, on_note=lambda note: None, silence_limit_s=20)


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    return [int(child) for child, parent in (entry.split() for entry in listed) if int(parent) == pid]
