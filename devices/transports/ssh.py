"""Another machine over OpenSSH: the agent is sent as one file, and exchanges JSON lines over the same connection."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from devices import answers
from devices.checks import check_range
from devices.store import stored_name
from devices.transports import Address, Agent, bootstrap, typed
from devices.transports.archive import agent_archive
from devices.transports.connection import Connection
from ofa.errors import DeviceError
from ofa.reasons import reason_of

__all__ = ["Ssh"]

_LAST_PORT = 65535

_CHUNK = 1 << 18
_ANSWER_LIMIT_S = 120.0
_CONNECT_LIMIT_S = 15
_FIXED = (
    "BatchMode=yes",
    f"ConnectTimeout={_CONNECT_LIMIT_S}",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "Tunnel=no",
)
"""Options of every ssh command. They override the configuration: ssh uses the first value, and the command line comes first."""

_RULES = {
    # As an argument or in a ProxyCommand of the user's own, other characters would be options, expansions or commands.
    "host": (r"[A-Za-z0-9._:][A-Za-z0-9._:-]*", "a name or address"),
    "user": (r"([A-Za-z0-9._][A-Za-z0-9._@+-]*)?", "a name"),
    "identity": (r"([^\x00-\x1f\x7f%$-][^\x00-\x1f\x7f%$]*)?", "a path without %, $, control characters or a dash at its start"),
    "python": (r"(?!-)([^\x00-\x1f\x7f]*[/\\])?[\w.+-]*(python|pypy)[\w.+-]*", "the path of a Python interpreter, called so"),
    "folder": (r"(?!-)(?!(.*/)?\.\.(/|$))[^\x00-\x1f\x7f]*", "a path without '..', control characters or a dash at its start"),
}
"""Pattern of each field, and the rule in words."""

_HEARTBEAT_S = 20.0
_CONNECTION_LOST = 255
_HOPELESS = re.compile(
    r"permission denied|host key verification failed|identification has changed|too many authentication failures|"
    r"name or service not known|bad configuration|no matching|bad port|no such identity",
    re.IGNORECASE,
)
"""Errors of ssh for which a retry is useless."""


@dataclass(frozen=True, kw_only=True)
class Ssh(Address):
    """Another machine, by the user's own ``ssh`` and its configuration.

    There are no prompts: an unknown host, or a key with a passphrase outside of ssh-agent, is an error. Files are stored there by hash, so
    that a network is sent only once. Values of a device file cannot become options, commands or expansions of ``ssh``. Nothing is
    forwarded: no ssh-agent, ports or display.

    Args:
        host: name or address, or a name in the user's ssh configuration.
        port: port; 0 for the configuration's.
        user: user name; "" for the configuration's.
        identity: path of the private key; "" for the configuration's.
        config: path of an ssh configuration; "" for the user's own. A configuration can run programs, so it must be typed by the user and
            is not allowed in device files.
        python: Python interpreter of the machine, 3.10 or newer, with numpy and the runtime.
        folder: folder of the agent and the networks on the machine, relative to the user's home.

    Raises:
        DeviceError: an invalid value.
    """

    kind: ClassVar[str] = "ssh"
    host: str
    port: int = 0
    user: str = ""
    identity: str = ""
    config: str = typed("--ssh-config FILE")
    python: str = "python3"
    folder: str = ".cache/ofa"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, (pattern, rule) in _RULES.items():
            if not re.fullmatch(pattern, getattr(self, key)):
                raise DeviceError(f"'{key}' of an ssh address must be {rule}, but is {getattr(self, key)!r}; correct it")
        check_range(self, "port", "an ssh address", 0, _LAST_PORT)

    def start(self) -> Connection:
        """Start the agent on the machine."""
        head = {"folder": self.folder, "archive": base64.b64encode(agent_archive()).decode()}
        return Connection(
            [*_command(self)], place=f"'{self.host}'", greeting=json.dumps(head), line_lost=_is_line_lost, heartbeat_s=_HEARTBEAT_S
        )

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Send the missing files. Each keeps its suffix, by which some runtimes recognize the format."""
        contents = {key: _content(path) for key, path in paths.items()}
        there = {key: stored_name(content, paths[key].suffix) for key, content in contents.items()}
        names = sorted(set(there.values()))
        missing = set(answers.missing_files(_ask(agent, {"op": "missing", "files": names}), names))
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
    options = ["-T", *(word for option in _FIXED for word in ("-o", option))]
    if ssh.port:
        options += ["-p", str(ssh.port)]
    if ssh.config:
        options += ["-F", str(Path(ssh.config).expanduser())]
    if ssh.user:
        options += ["-l", ssh.user]
    if ssh.identity:
        options += ["-i", str(Path(ssh.identity).expanduser())]
    return ["ssh", *options, "--", ssh.host, f"{shlex.quote(ssh.python)} -I -c {shlex.quote(_bootstrap())}"]


@lru_cache(maxsize=1)
def _bootstrap() -> str:
    return Path(bootstrap.__file__).read_text(encoding="utf-8")


def _is_line_lost(status: int, words: str) -> bool:
    """Whether the connection ended and a retry may help. The remote command never exits with ssh's own status 255."""
    return status == bootstrap.CUT_OFF or (status == _CONNECTION_LOST and not _HOPELESS.search(words))


def _send(agent: Agent, name: str, content: bytes) -> None:
    for start in range(0, max(1, len(content)), _CHUNK):
        chunk = content[start : start + _CHUNK]
        last = start + _CHUNK >= len(content)
        _ask(agent, {"op": "put", "file": name, "start": start, "content": base64.b64encode(chunk).decode(), "last": last})


def _ask(agent: Agent, message: Mapping[str, object]) -> Any:
    return agent.request(message, on_note=answers.Notes(), silence_limit_s=_ANSWER_LIMIT_S)
