from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices import Ssh

_SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


class SshServer:
    """A real OpenSSH server on loopback, with keys of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free_port()
        self.key, self.host_key = _make_key(folder / "key"), _make_key(folder / "host_key")
        (folder / "authorized").write_text((folder / "key.pub").read_text())
        self.known_hosts = folder / "known_hosts"
        self.trust(folder / "host_key.pub")
        # A server that changes users needs its folder for those that it does not trust yet; it is root that runs it then.
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.host_key,
            "AuthorizedKeysFile": folder / "authorized",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",
            "PidFile": "none",
        }
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.config = folder / "ssh_config"
        self.config.write_text(f"Host *\n  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n  IdentitiesOnly yes\n")
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen([str(_SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        self._wait()

    def trust(self, public_key: Path) -> None:
        kind, key = public_key.read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def address(self, **changes: object) -> Ssh:
        fields = {"host": "127.0.0.1", "port": self.port, "user": getpass.getuser(), "identity": str(self.key), "config": str(self.config)}
        fields |= {"retries": 2, "backoff_s": 0.1}
        return Ssh(**{**fields, "python": sys.executable, "folder": str(self.folder / "remote"), **changes})  # type: ignore[arg-type]

    def agents(self) -> list[int]:
        """Processes that run the agent's file from this server's folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(self.folder / "remote") in line and ".pyz" in line:
                found.append(int(entry.name))
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _wait(self) -> None:
        for _ in range(100):
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("sshd does not listen")


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[SshServer]:
    if _SSHD is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's server is not installed")
    folder = tmp_path / "ssh"
    folder.mkdir()
    server = SshServer(folder)
    yield server
    server.stop()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Whether something becomes true within some seconds."""

    def wait(condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + 10
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    return wait
