"""What lies where somebody stands, here or on a device, is not imported; what somebody installed for himself there is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from devices import Device, TimingPolicy, describe, time_models
from devices.transports.archive import agent_archive
from tests.devices.conftest import SshServer
from tests.devices.models import save_conv

QUICK = TimingPolicy(min_rounds=2, max_rounds=2)
MODULES = ("json", "base64", "select", "numpy", "devices", "pynvml", "sitecustomize", "usercustomize", "fcntl", "onnx")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of modules that leave a mark when they are imported."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write({name!r})\n")
    return folder


def mark(tmp_path: Path) -> str:
    path = tmp_path / "mark"
    return path.read_text() if path.exists() else ""


def wrapper(tmp_path: Path, before: str, python: str = sys.executable) -> str:
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\n{before}\nexec {python} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_on_a_device(ssh_server: SshServer, trap: Path, tmp_path: Path) -> None:
    """Neither in the folder where a connection begins, nor in that of the agent, nor by a variable of the environment."""
    trap.rename(ssh_server.folder / "remote")
    remote = ssh_server.folder / "remote"
    python = wrapper(tmp_path, f"cd {remote}\nexport PYTHONPATH={remote} PYTHONSTARTUP={remote}/json.py PYTHONINSPECT=1")
    device = Device(name="there", runtime="fake", address=ssh_server.address(python=python))
    assert time_models(device, {"a": save_conv(tmp_path / "a.onnx")}, rng=np.random.default_rng(0), policy=QUICK)
    assert mark(tmp_path) == ""


def test_here(trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trap)
    monkeypatch.syspath_prepend(str(trap))
    assert time_models(
        Device(name="here", runtime="fake"), {"a": save_conv(tmp_path / "a.onnx")}, rng=np.random.default_rng(0), policy=QUICK
    )
    assert mark(tmp_path) == ""


@pytest.mark.slow
def test_what_pip_installed_for_this_user_alone_is_found(ssh_server: SshServer, tmp_path: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = tmp_path / "base" / "lib" / version / "site-packages"
    libraries.mkdir(parents=True)
    for library in Path(np.__file__).parents[1].glob("numpy*"):
        (libraries / library.name).symlink_to(library)
    (libraries / "json.py").write_text("raise SystemExit('the wrong json')")
    python = wrapper(tmp_path, f"export PYTHONUSERBASE={tmp_path / 'base'}", python=str(Path(sys.base_prefix) / "bin" / version))
    assert describe(Device(name="there", runtime="fake", address=ssh_server.address(python=python)))["runtime_version"] == "1"


@pytest.mark.slow
def test_an_agent_there_that_is_not_ours_is_not_run(ssh_server: SshServer, tmp_path: Path) -> None:
    device = Device(name="there", runtime="fake", address=ssh_server.address())
    describe(device)
    (agent,) = (ssh_server.folder / "remote").glob("*.pyz")
    assert (ssh_server.folder / "remote").stat().st_mode & 0o777 == 0o700
    agent.write_bytes(b"raise SystemExit('another')")
    (agent.parent / f"{agent.name}.99999999").write_bytes(b"half an agent")
    assert describe(device)["runtime_version"] == "1"
    assert [path.read_bytes() for path in agent.parent.iterdir()] == [agent_archive()]


@pytest.mark.slow
def test_a_file_that_was_damaged_there_is_sent_again(ssh_server: SshServer, tmp_path: Path) -> None:
    device, models = Device(name="there", runtime="fake", address=ssh_server.address()), {"a": save_conv(tmp_path / "a.onnx")}
    first = time_models(device, models, rng=np.random.default_rng(0), policy=QUICK)
    (there,) = (ssh_server.folder / "remote").glob("*.onnx")
    there.write_bytes(save_conv(tmp_path / "other.onnx", layers=3).read_bytes())
    again = time_models(device, models, rng=np.random.default_rng(0), policy=QUICK)
    assert again["a"].median_ms == first["a"].median_ms
    assert there.read_bytes() == models["a"].read_bytes()
