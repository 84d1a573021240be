"""Whatever goes wrong on a device is one sentence, without the name of an exception: against the real agent and a real OpenSSH server."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from devices import Device, TimingPolicy, describe, groups, time_models
from devices.measure import measure
from devices.runtimes import Settings, Timer
from devices.runtimes.fake import FakeRuntime
from devices.store import stored_name
from devices.transports import Connection
from devices.transports.ssh import _bootstrap
from ofa.errors import DeviceError
from ofa.reasons import plain_words, reason_of
from tests.devices.conftest import SshServer
from tests.devices.models import save_conv

QUICK = TimingPolicy(min_rounds=5, max_rounds=5, sample_ms=0.2)
FOR_DEVELOPERS = re.compile(r"\b\w*(Error|Exception)\b|Errno|Traceback|std::|\n")


def there(server: SshServer, *, runtime: str = "fake", **changes: object) -> Device:
    return Device(name="there", runtime=runtime, address=server.address(**changes))


def interpreter(folder: Path, *, before: str = "", only: tuple[str, ...] | None = None) -> str:
    """A command that runs Python after some shell commands; it may find only some of the libraries that are installed here."""
    python = sys.executable
    if only is not None:
        venv.create(folder / "venv", symlinks=True)
        python = str(folder / "venv" / "bin" / "python")
        (libraries,) = (folder / "venv" / "lib").glob("python*/site-packages")
        for library in Path(np.__file__).parents[1].iterdir():
            if library.name.startswith(only):
                (libraries / library.name).symlink_to(library)
    path = folder / "python"
    path.write_text(f'#!/bin/sh\n{before}\nexec {python} "$@"\n')
    path.chmod(0o755)
    return str(path)


def sentence_of(device: Device, models: dict[str, Path] | None = None) -> str:
    ask = partial(describe, device)
    if models is not None:
        ask = partial(time_models, device, models, rng=np.random.default_rng(0), policy=QUICK)
    with pytest.raises(DeviceError) as caught:
        ask()
    sentence = str(caught.value)
    assert not FOR_DEVELOPERS.search(sentence), sentence
    return sentence


@pytest.mark.parametrize(
    ("before", "only", "words"),
    [
        ("", (), r"the agent needs numpy on the device, but .* cannot import it: No module named 'numpy'; install it"),
        (
            "echo Welcome to this host",
            None,
            r"in JSON lines of at most 4 MiB, but '127\.0\.0\.1' said 'Welcome to this host'; make sure that nothing else prints",
        ),
        (r"printf '\377\376\n'", None, "in JSON lines"),
        ("""echo '{"doing": "well"}'""", None, "in JSON lines"),
        ("echo 3; exit 4", None, "in JSON lines"),
        ("exit 4", None, "died with status 4 while starting; check that the device answers"),
        ("kill -9 $$", None, "the connection was lost while starting"),
        ("ulimit -f 0", None, r"must be able to keep the agent in '.*', but: file too large; free it"),
    ],
)
def test_an_agent_that_cannot_start(ssh_server: SshServer, tmp_path: Path, before: str, only: tuple[str, ...] | None, words: str) -> None:
    python = interpreter(tmp_path, before=before, only=only)
    assert re.search(words, sentence_of(there(ssh_server, python=python)))
    remote = ssh_server.folder / "remote"
    assert [path.suffix for path in remote.iterdir()] in ([], [".pyz"]) if remote.exists() else True


def test_a_folder_that_cannot_be(ssh_server: SshServer) -> None:
    folder = str(ssh_server.config / "folder")
    assert "but: not a directory; free it, or name another 'folder' under [transport]" in sentence_of(there(ssh_server, folder=folder))


def test_an_interpreter_that_is_not_there(ssh_server: SshServer) -> None:
    assert "check 'python' under [transport]" in sentence_of(there(ssh_server, python="/nowhere/python3"))


def test_a_python_that_is_too_old() -> None:
    old = "import sys; sys.version_info, sys.version = (3, 8, 1), '3.8.1 (old)'\n"
    started = Connection([sys.executable, "-c", old + _bootstrap()], place="the test", greeting="{}")
    with started as agent, pytest.raises(DeviceError, match=r"Python 3\.10 or newer, but '.*' is 3\.8\.1; name another") as caught:
        agent.request({"op": "describe"}, on_note=lambda note: None, silence_limit_s=20)
    assert not FOR_DEVELOPERS.search(str(caught.value))


def test_a_runtime_that_is_missing_there(ssh_server: SshServer, tmp_path: Path) -> None:
    device = there(ssh_server, runtime="onnxruntime", python=interpreter(tmp_path, only=("numpy",)))
    assert "'onnxruntime' needs onnxruntime on the device, which is not installed; install it with" in sentence_of(device)


def test_a_disk_that_is_full_there_leaves_no_part(ssh_server: SshServer, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    path.write_bytes(bytes(3_500_000))
    device = there(ssh_server, python=interpreter(tmp_path, before="ulimit -f 1000"))
    assert "must be able to keep networks in" in sentence_of(device, {"large": path})
    assert [each.suffix for each in (ssh_server.folder / "remote").iterdir()] == [".pyz"]


def test_a_file_that_is_not_here(ssh_server: SshServer, tmp_path: Path) -> None:
    assert "must be readable to be sent, but" in sentence_of(there(ssh_server), {"none": tmp_path / "none.onnx"})
    assert "doesn't exist" in sentence_of(Device(name="here", runtime="onnxruntime"), {"none": tmp_path / "none.onnx"}).lower()


def test_inputs_that_no_memory_holds_do_not_keep_the_others(tmp_path: Path) -> None:
    models = {"huge": save_conv(tmp_path / "huge.onnx", side=2**20), "small": save_conv(tmp_path / "small.onnx")}
    found = dict(measure(Device(name="here", runtime="fake"), models, rng=np.random.default_rng(0), policy=QUICK))
    assert "there is not enough memory; leave it out" in str(found["huge"])
    assert found["small"].median_ms > 0  # type: ignore[union-attr]
    assert "'huge' cannot be timed" in sentence_of(Device(name="here", runtime="fake"), models)


def test_a_request_that_meets_what_nobody_expected_does_not_end_the_agent() -> None:
    device = Device(name="here", runtime="fake")
    with device.address.start() as agent:  # type: ignore[attr-defined]
        for request in ({"op": "time", "settings": device.settings.to_json()}, {"op": "missing"}, {}):
            with pytest.raises(DeviceError, match=r"must be able to finish .*, but: there is no '\w+'"):
                agent.request(request, on_note=lambda note: None, silence_limit_s=20)
        name = stored_name(b"none", ".onnx")
        assert agent.request({"op": "missing", "files": [name]}, on_note=lambda note: None, silence_limit_s=20) == [name]


def test_a_system_without_memory_is_suspected_of_the_kill() -> None:
    program = 'import os; input(); print(\'{"id": 1, "doing": "loading a", "step": 0, "steps": 2}\', flush=True); os.kill(os.getpid(), 9)'
    with Connection([sys.executable, "-c", program], place="the test") as agent, pytest.raises(DeviceError) as caught:
        agent.request({"op": "time"}, on_note=lambda note: None, silence_limit_s=20)
    assert "died by signal 9, killed, while loading a; a system that runs out of memory does that" in str(caught.value)


def test_whoever_waits_or_asks_later_learns_that_a_connection_is_closed() -> None:
    def ask() -> None:
        with pytest.raises(DeviceError, match="died by signal 9"):
            connection.request({"op": "describe"}, on_note=lambda note: None, silence_limit_s=20)

    with ThreadPoolExecutor(1) as pool:
        for _ in range(30):
            connection = Connection(["sleep", "60"], place="the test")
            waiting = pool.submit(ask)
            connection.close()
            waiting.result()
            ask()


def test_a_network_that_fails_while_it_is_timed_is_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {f"{layers} layers": str(save_conv(tmp_path / f"{layers}.onnx", layers=layers)) for layers in (1, 2, 3)}
    load = FakeRuntime.load

    def tiring(runtime: FakeRuntime, path: Path, settings: Settings) -> object:
        session = load(runtime, path, settings)
        timer = session.timer

        def tired_timer(inputs: dict[str, np.ndarray]) -> Timer:
            timed, left = timer(inputs), iter(range(20))

            def tired(calls: int) -> float:
                if next(left, None) is None:
                    raise DeviceError("a runtime must run this network, but is tired; let it rest")
                return timed(calls)

            return tired if path.name == "2.onnx" else timed

        session.timer = tired_timer  # type: ignore[method-assign]
        return session

    monkeypatch.setattr(FakeRuntime, "load", tiring)
    policy = TimingPolicy(min_rounds=40, max_rounds=40)
    found = groups.time_group(Device(name="here", runtime="fake"), paths, policy=policy, seed=0, say=lambda note: None)
    assert found["2 layers"].error == "a runtime must run this network, but is tired; let it rest"
    assert [outcome.timing is not None for outcome in found.values()] == [True, False, True]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("std::bad_alloc"), "there is not enough memory"),
        (
            RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
            "there is not enough memory",
        ),
        (OSError(28, "No space left on device"), "no space left on device"),
        (KeyError("op"), "there is no 'op'"),
        (RuntimeError(), "it says no reason"),
        (
            RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:149 "
                "onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void(int)>&, bool) Unsupported model IR version: 10, "
                "max supported IR version: 9\n"
            ),
            "Unsupported model IR version: 10, max supported IR version: 9",
        ),
    ],
)
def test_reasons_are_plain_words(error: Exception, words: str) -> None:
    assert reason_of(error) == words


def test_the_last_line_of_a_traceback_is_its_reason() -> None:
    program = [sys.executable, "-c", "raise RuntimeError('the fan is\\nloose')"]
    last = subprocess.run(program, capture_output=True, text=True, check=False).stderr.splitlines()[-2:]
    assert [plain_words(line) for line in last] == ["the fan is", "loose"]
    assert plain_words("MemoryError") == ""
