"""What the interpreter on a device is started with: it takes the agent from its input, keeps it by its content, and watches over it.

It is sent as source and runs isolated (``python -I -c``), so nothing beside Python's own library may be imported, and nothing that an old
Python cannot parse may be written. It exits with the agent's status, as a shell would: 128 and the number of the signal where one ended it;
or with ``CUT_OFF`` where nobody seems to be at the other end.
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
"""Status of an agent whose input has ended."""

_INPUT, _OUTPUT = 0, 1
_PRIVATE = 0o077
_SIGNALED, _CONNECTION_LOST = 128, 255
_SILENCE_S = 90.0  # the near end sends something several times within this
_ENDING_S = 2.0
_CHUNK = 1 << 16


def main() -> None:
    """Start the agent and end when it does; end it when nobody is at the other end of the input any more."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this is where it is found out
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
    """All that has come when the first line is there."""
    content = b""
    while b"\n" not in content:
        chunk = os.read(_INPUT, _CHUNK)
        if not chunk:
            sys.exit(1)
        content += chunk
    return content


def _keep(head: dict) -> tuple:  # type: ignore[type-arg]
    """Folder and path of the agent, which is written unless it is there as it was sent."""
    folder = os.path.join(os.path.expanduser("~"), head["folder"])
    content = base64.b64decode(head["archive"])
    path = os.path.abspath(os.path.join(folder, "agent-" + hashlib.sha256(content).hexdigest()[:16] + ".pyz"))
    part = path + "." + str(os.getpid())
    os.umask(_PRIVATE)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.stat(folder).st_uid != os.getuid():
            _end(f"what runs on a device must lie in a folder of the user's own, but '{folder}' is of another; name another as 'folder'")
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
    """Remove what processes left that died while they wrote the agent."""
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
    """Give the agent its input. When there is no more, or none for too long, it may end by itself, and then is ended."""
    assert agent.stdin is not None
    target = agent.stdin.fileno()
    os.set_blocking(target, False)
    with contextlib.suppress(OSError):
        while True:
            if rest.strip():  # an empty line only says that the near end is there
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
    """End the agent and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(agent.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
