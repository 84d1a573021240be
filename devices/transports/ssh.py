"""Another machine over OpenSSH: one file is sent there, and speaks JSON lines over the connection that brought it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devices.checks import check_range
from devices.transports import Address, Agent
from devices.transports.archive import agent_archive
from devices.transports.connection import Connection
from ofa.errors import DeviceError
from ofa.reasons import reason_of

__all__ = ["Ssh"]

_LAST_PORT = 65535

_CHUNK = 1 << 20
_ANSWER_LIMIT_S = 120.0
_CONNECT_LIMIT_S = 15

_BOOTSTRAP = """
import base64, hashlib, json, os, sys
def end(sentence):
    sys.stdout.write(json.dumps({"error": sentence}) + "\\n")
    sys.stdout.flush()
    sys.exit(1)
version = sys.version.split()[0]
if sys.version_info < (3, 10):
    end("the agent needs Python 3.10 or newer, but '" + sys.executable + "' is " + version + "; name another as 'python' under [transport]")
source = os.fdopen(0, "rb", buffering=0, closefd=False)  # unbuffered: what comes after this line is the agent's
head = json.loads(source.readline())
folder = os.path.join(os.path.expanduser("~"), head["folder"])
part = ""
try:
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    content = base64.b64decode(head["archive"])
    path = os.path.abspath("agent-" + hashlib.sha256(content).hexdigest()[:16] + ".pyz")
    if not os.path.exists(path):
        part = path + "." + str(os.getpid())
        with open(part, "wb") as file:
            file.write(content)
        os.replace(part, path)
except OSError as error:
    if part and os.path.exists(part):
        os.unlink(part)
    reason = (error.strerror or str(error)).lower()
    remedy = "free it, or name another 'folder' under [transport]"
    end("the device must be able to keep the agent in '" + folder + "', but: " + reason + "; " + remedy)
os.execv(sys.executable, [sys.executable, path])
"""
"""What the interpreter over there is started with: it takes the agent from its input, keeps it by its content, and becomes it."""


@dataclass(frozen=True, kw_only=True)
class Ssh(Address):
    """Another machine, by the user's own ``ssh`` and its configuration.

    Nothing is asked: a host that is not known, or a key that needs a password and is not held by an agent, is an error. Files are kept
    there by their content, so that a network that was sent once is not sent again.

    Args:
        host: name or address, or a name in the user's ssh configuration.
        port: 0 for the configuration's.
        user: "" for the configuration's.
        identity: path of the private key; "" for the configuration's.
        config: path of an ssh configuration; "" for the user's own.
        python: the interpreter there, 3.10 or newer, with numpy and the runtime.
        folder: where the agent and the networks are kept there, from the user's home.

    Raises:
        DeviceError: a value that cannot be.
    """

    kind: ClassVar[str] = "ssh"
    host: str
    port: int = 0
    user: str = ""
    identity: str = ""
    config: str = ""
    python: str = "python3"
    folder: str = ".cache/ofa"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("host", "user"):
            # What begins with a dash would be read as an option by ssh.
            if getattr(self, key).startswith("-") or (key == "host" and not self.host.strip()):
                raise DeviceError(f"'{key}' of an ssh address must be a name or address, but is '{getattr(self, key)}'; correct it")
        check_range(self, "port", "an ssh address", 0, _LAST_PORT)

    def start(self) -> Connection:
        """Start the agent there."""
        head = {"folder": self.folder, "archive": base64.b64encode(agent_archive()).decode()}
        return Connection([*_command(self)], place=f"'{self.host}'", greeting=json.dumps(head))

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Send the files that are not there. Each keeps its suffix, by which some runtimes know the format."""
        contents = {key: _content(path) for key, path in paths.items()}
        there = {key: f"{hashlib.sha256(content).hexdigest()}{paths[key].suffix}" for key, content in contents.items()}
        missing = set(_ask(agent, {"op": "missing", "files": sorted(set(there.values()))}))
        for key, name in there.items():
            if name in missing:
                _send(agent, name, contents[key])
                missing.remove(name)
        return there


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(
            f"a network's file must be readable to be sent, but '{path}' is not: {reason_of(error)}; check the path"
        ) from error


def _command(ssh: Ssh) -> list[str]:
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_LIMIT_S}", "-o", "ServerAliveInterval=10"]
    if ssh.port:
        options += ["-p", str(ssh.port)]
    if ssh.config:
        options += ["-F", str(Path(ssh.config).expanduser())]
    if ssh.user:
        options += ["-l", ssh.user]
    if ssh.identity:
        options += ["-i", str(Path(ssh.identity).expanduser())]
    return ["ssh", *options, "--", ssh.host, f"{shlex.quote(ssh.python)} -c {shlex.quote(_BOOTSTRAP)}"]


def _send(agent: Agent, name: str, content: bytes) -> None:
    for start in range(0, max(1, len(content)), _CHUNK):
        chunk = content[start : start + _CHUNK]
        last = start + _CHUNK >= len(content)
        _ask(agent, {"op": "put", "file": name, "start": start, "content": base64.b64encode(chunk).decode(), "last": last})


def _ask(agent: Agent, message: Mapping[str, object]) -> list[str]:
    answer: list[str] = agent.request(message, on_note=lambda note: None, silence_limit_s=_ANSWER_LIMIT_S)
    return answer
