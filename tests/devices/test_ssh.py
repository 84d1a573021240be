"""A device behind a real OpenSSH server on loopback."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from devices import Device, Ssh, TimingPolicy, describe, probe, time_models
from devices.measure import measure
from devices.runtimes import Option, Settings
from devices.transports import Connection
from devices.transports.archive import agent_archive
from ofa.errors import DeviceError
from tests.devices.conftest import SshServer
from tests.devices.models import save_conv

QUICK = TimingPolicy(min_rounds=5, max_rounds=5, sample_ms=0.2)


def there(address: Ssh, runtime: str = "fake", **options: Option) -> Device:
    return Device(name="there", runtime=runtime, address=address, options=tuple(options.items()))


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {f"{layers} layers": save_conv(tmp_path / f"{layers}.onnx", channels=16, side=16, layers=layers) for layers in (1, 4, 16)}


def medians(device: Device, models: dict[str, Path]) -> dict[str, float]:
    timings = time_models(device, models, rng=np.random.default_rng(0), policy=QUICK)
    return {key: timing.median_ms for key, timing in timings.items()}


def test_it_measures_what_a_local_one_does(ssh_server: SshServer, models: dict[str, Path]) -> None:
    assert medians(there(ssh_server.address()), models) == medians(Device(name="here", runtime="fake"), models)
    assert 0 < medians(there(ssh_server.address(), "onnxruntime"), models)["1 layers"] < 100


def test_it_describes_itself_and_answers_a_probe(ssh_server: SshServer) -> None:
    device = there(ssh_server.address(), "onnxruntime")
    assert describe(device)["device"]["transport"]["host"] == "127.0.0.1"
    assert probe(device)["probe"]["median_ms"] > 0


def test_a_file_is_sent_once_and_kept_by_its_content(ssh_server: SshServer, models: dict[str, Path]) -> None:
    device = there(ssh_server.address())
    first = medians(device, models)
    remote = ssh_server.folder / "remote"
    before = {path.name: path.stat().st_mtime_ns for path in remote.iterdir()}
    assert len([name for name in before if name.endswith(".onnx")]) == len(models)
    assert len([name for name in before if name.endswith(".pyz")]) == 1
    assert medians(device, models) == first
    assert {path.name: path.stat().st_mtime_ns for path in remote.iterdir()} == before


def test_a_large_file_arrives_whole_in_parts(ssh_server: SshServer, tmp_path: Path) -> None:
    device = there(ssh_server.address())
    path = tmp_path / "large.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(3_500_000))
    with device.address.start() as agent:  # type: ignore[attr-defined]
        name = device.address.bring(agent, {"large": path})["large"]
    assert (ssh_server.folder / "remote" / name).read_bytes() == path.read_bytes()


def test_a_crash_over_there_leaves_the_others(ssh_server: SshServer, models: dict[str, Path]) -> None:
    # The name over there is the content's, so that the option names the failing file by that.
    failing = hashlib.sha256(models["4 layers"].read_bytes()).hexdigest()
    device = there(ssh_server.address(), failure="crash", failing=failing)
    found = dict(measure(device, models, rng=np.random.default_rng(0), policy=QUICK))
    assert "died with status 86 while loading 4 layers" in str(found.pop("4 layers"))
    assert set(found) == {"1 layers", "16 layers"}


def test_an_agent_ends_when_the_connection_is_cut(
    ssh_server: SshServer, models: dict[str, Path], eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    device = there(ssh_server.address(), failure="hang")
    agent = device.address.start()
    networks = device.address.bring(agent, models)
    request = {"op": "time", "settings": device.settings.to_json(), "networks": networks, "policy": {}, "seed": 0}

    def ask() -> None:
        with contextlib.suppress(DeviceError):
            agent.request(request, on_note=lambda note: None, silence_limit_s=60)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert eventually(lambda: len(ssh_server.agents()) == 1)
    agent.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert eventually(lambda: ssh_server.agents() == []), "a hanging agent must not outlive its connection"


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_is_a_sentence(ssh_server: SshServer, models: dict[str, Path]) -> None:
    device = there(ssh_server.address())
    policy = TimingPolicy(min_rounds=10**6, max_rounds=10**6)
    seen = threading.Event()
    error: list[DeviceError] = []

    def work() -> None:
        try:
            time_models(device, models, rng=np.random.default_rng(0), policy=policy, progress=lambda *_: seen.set())
        except DeviceError as caught:
            error.append(caught)

    thread = threading.Thread(target=work)
    thread.start()
    assert seen.wait(20)
    time.sleep(0.5)
    for pid in _children(ssh_server.process.pid):
        os.kill(pid, signal.SIGKILL)
    ssh_server.stop()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert "must start on '127.0.0.1', but the connection was lost while starting" in str(error[0])
    assert "3 times in a row on device 'there'; 0 of 3 networks are timed; check that it is on" in str(error[0])
    assert any(word in str(error[0]) for word in ("refused", "reset"))  # by how far the server had gone


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    return [int(child) for child, parent in (line.split() for line in listed) if int(parent) == pid]


def test_nobody_listens(ssh_server: SshServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DeviceError, match=r"must start on '127\.0\.0\.1', but .*refused"):
            describe(there(ssh_server.address(port=unused.getsockname()[1])))


def test_another_host_key_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    ssh_server.trust(tmp_path / "other.pub")
    with pytest.raises(DeviceError, match="Host key verification failed"):
        describe(there(ssh_server.address()))


def test_a_host_that_is_not_known_is_refused(ssh_server: SshServer) -> None:
    ssh_server.known_hosts.write_text("")
    with pytest.raises(DeviceError, match="Host key verification failed"):
        describe(there(ssh_server.address()))


def test_a_key_that_is_not_allowed_is_refused(ssh_server: SshServer) -> None:
    (ssh_server.folder / "authorized").write_text("")
    with pytest.raises(DeviceError, match="Permission denied"):
        describe(there(ssh_server.address()))


def test_an_interpreter_that_is_not_there_is_a_sentence(ssh_server: SshServer) -> None:
    with pytest.raises(DeviceError, match=r"not found|No such file"):
        describe(there(ssh_server.address(python="/nowhere/python3")))


def test_the_agent_is_one_file_that_needs_python_and_numpy_only(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_archive())
    assert agent_archive() == path.read_bytes()
    # Isolated from this project: only the file itself can give `devices` and `ofa`.
    request = {"op": "describe", "settings": Settings(runtime="fake").to_json()}
    with Connection([sys.executable, "-P", str(path)], environment={"PATH": os.environ["PATH"]}, place="the test") as agent:
        assert agent.request(request, on_note=lambda note: None, silence_limit_s=20)["runtime_version"] == "1"
    names = zipfile.ZipFile(path).namelist()
    assert "devices/agent.py" in names
    assert not any(name.endswith(".toml") or name.startswith("latency_tables") for name in names)


def test_the_agent_runs_on_python_3_10() -> None:
    """Boards have older Pythons than this project; what is newer must not be imported when the agent starts."""
    newer = {("datetime", "UTC"), ("typing", "Self"), ("typing", "assert_never"), ("enum", "StrEnum"), ("tomllib", "")}
    archive = zipfile.ZipFile(io.BytesIO(agent_archive()))
    for name in archive.namelist():
        tree = ast.parse(archive.read(name), filename=name, feature_version=(3, 10))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                assert not {(node.module, alias.name) for alias in node.names} & newer, name
            if isinstance(node, ast.Import):
                assert not {(alias.name, "") for alias in node.names} & newer, name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": "-oProxyCommand=x"}, "must be a name or address"),
        ({"host": " "}, "must be a name or address"),
        ({"host": "a", "port": 70000}, "within 0 and 65535"),
        ({"host": "a", "port": "22"}, "a whole number"),
    ],
)
def test_an_address_that_cannot_be_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        Ssh(**fields)  # type: ignore[arg-type]
