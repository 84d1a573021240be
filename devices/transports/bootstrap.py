"""Bootstrap of the agent on a device: it reads the agent from its input, stores it by its hash, starts it, and monitors it.

It is sent as source and runs isolated (``python -I -c``), so it may import the standard library only, and must be parsable by old versions
of Python. It exits with the agent's status as a shell would (128 plus the number of a fatal signal), or with ``CUT_OFF`` if the other end
seems to be gone.
"""

import base64
import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

__all__ = ["CUT_OFF", "main"]

CUT_OFF = 3
"""Exit status of an agent whose input has ended."""

_INPUT, _OUTPUT = 0, 1
_PRIVATE = 0o077
_SIGNALED, _CONNECTION_LOST = 128, 255
_SILENCE_S = 90.0  # the near end sends several heartbeats within this time
_ENDING_S = 2.0
_CHUNK = 1 << 16


def main() -> None:
    """Start the agent and exit with it; end the agent if the other end of the input is gone."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this is the check itself
        version = sys.version.split()[0]
        _end(f"the agent needs Python 3.10 or newer, but '{sys.executable}' is {version}; name another as 'python' under [transport]")
    head, _, rest = _first_line().partition(b"\n")
    folder, path = _keep(json.loads(head))
    agent = subprocess.Popen([sys.executable, "-I", path], stdin=subprocess.PIPE, cwd=folder, start_new_session=True)
    alone = threading.Event()
    threading.Thread(target=_pass_on, args=(agent, rest, alone), daemon=True).start()
    status = agent.wait()
    _kill(agent)
    status = CUT_OFF if alone.is_set() else _SIGNALED - status if status < 0 else status
    os._exit(1 if status == _CONNECTION_LOST else status)


def _end(sentence: str) -> None:
    os.write(_OUTPUT, (json.dumps({"error": sentence}) + "\n").encode())
    sys.exit(1)


def _first_line() -> bytes:
    """The input up to at least the end of the first line."""
    content = b""
    while b"\n" not in content:
        chunk = os.read(_INPUT, _CHUNK)
        if not chunk:
            sys.exit(1)
        content += chunk
    return content


def _keep(head: dict) -> tuple:  # type: ignore[type-arg]
    """Folder and path of the agent's file, which is written unless an identical file exists."""
    folder = os.path.join(os.path.expanduser("~"), head["folder"])
    content = base64.b64decode(head["archive"])
    path = os.path.abspath(os.path.join(folder, "agent-" + hashlib.sha256(content).hexdigest()[:16] + ".pyz"))
    part = path + "." + str(os.getpid())
    os.umask(_PRIVATE)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.stat(folder).st_uid != os.getuid():
            _end(f"the agent's folder must belong to the user, but '{folder}' belongs to another; name another as 'folder'")
        _remove_parts(folder)
        if not _is(path, content):
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, path)
    except OSError as error:
        if os.path.exists(part):
            os.unlink(part)
        reason = (error.strerror or str(error)).lower()
        remedy = "free it, or name another 'folder' under [transport]"
        _end(f"the device must be able to keep the agent in '{folder}', but: {reason}; {remedy}")
    return folder, path


def _is(path: str, content: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(content) + 1) == content
    except FileNotFoundError:
        return False


def _remove_parts(folder: str) -> None:
    """Remove incomplete files of processes that died while they wrote the agent."""
    for name in os.listdir(folder):
        number = name.rpartition(".pyz.")[2]
        if name.startswith("agent-") and number != name and number.isdecimal():
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                os.unlink(os.path.join(folder, name))
            except PermissionError:
                pass


def _pass_on(agent: "subprocess.Popen[bytes]", rest: bytes, alone: threading.Event) -> None:
    """Forward input to the agent. At its end, or after a long silence, give the agent time to exit, then kill it."""
    assert agent.stdin is not None
    target = agent.stdin.fileno()
    os.set_blocking(target, False)
    with contextlib.suppress(OSError):
        while True:
            if rest.strip():  # an empty line is a heartbeat
                _send(target, rest)
            if not select.select([_INPUT], [], [], _SILENCE_S)[0]:
                break
            rest = os.read(_INPUT, _CHUNK)
            if not rest:
                break
    alone.set()
    with contextlib.suppress(OSError):
        agent.stdin.close()
    time.sleep(_ENDING_S)
    _kill(agent)


def _send(target: int, content: bytes) -> None:
    while content:
        if not select.select([], [target], [], _SILENCE_S)[1]:
            raise OSError("it takes nothing")
        content = content[os.write(target, content) :]


def _kill(agent: "subprocess.Popen[bytes]") -> None:
    """Kill the agent and its child processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(agent.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
