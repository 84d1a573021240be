"""Commands of ``ofa`` in processes that are forked from one in which everything is imported, so that a start costs no seconds."""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.operations import Listener, Operation, install

__all__ = ["Ended", "Zygote"]

_ROOT = Path(__file__).parents[2]
_MODULES = "modules.json"
_MESSAGE = 1 << 20
_QUIET_S = 0.05
"""Longest wait for an operation before the clock is looked at."""
_HANGS_S = 300.0
_ENDING_S = 20.0
"""In which all descendants of a process that has ended must end, too."""


@dataclass(frozen=True)
class Ended:
    """What became of a command.

    Attributes:
        status: its exit status; the number of the signal, negative, that killed it.
        out, err: what it printed.
        operations: what it did, in order, descendants included.
        took_s: until it and all its descendants had ended.
        processor_s: seconds of a processor that it used, without those of descendants that outlived it.
        orphans: descendants that had to be killed after it.
    """

    status: int
    out: str
    err: str
    operations: tuple[Operation, ...]
    took_s: float
    processor_s: float
    orphans: tuple[str, ...]


Decide = Callable[[int, Operation, int], int | None]
"""Told the number of an operation (from 0), the operation, before it is done, and the process of the command, which need not be the one
that does it: None allows it, a number is the error that it fails with."""


class Zygote:
    """The process that is forked from, as seen from outside. Used in a ``with`` block."""

    def __enter__(self) -> Zygote:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_HANGS_S)
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        environment = {**os.environ, **threads, "PYTHONPATH": str(_ROOT), "OFA_TRACEBACK": "", "PYTHONWARNINGS": "default"}
        # Its telemetry starts a thread when it is imported, which a fork does not take along.
        environment["ORT_DISABLE_TELEMETRY"] = "1"
        command = [sys.executable, "-m", "tests.faults.zygote", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, pass_fds=[theirs.fileno()])
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait(30)

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        temporary: Path,
        output: Path,
        decide: Decide | None = None,
        *,
        kill_after_s: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command, and wait for all that it started.

        Args:
            words: of the command line, after ``ofa``.
            folder: where it runs.
            temporary: its TMPDIR.
            output: a folder for what it prints.
            decide: told of each operation below ``folder`` and ``temporary``; it may kill the process.
            kill_after_s: after so long it is killed, wherever it is.
            environment: more variables.
        """
        request = {"words": list(words), "folder": str(folder), "output": str(output)}
        request["environment"] = {"TMPDIR": str(temporary), **(environment or {})}
        start = time.monotonic()
        self._socket.send(json.dumps(request).encode())
        told, descriptors, _, _ = socket.recv_fds(self._socket, _MESSAGE, 1)
        process = json.loads(told)["process"]
        listener = Listener(descriptors[0], (folder.resolve(), temporary.resolve()))
        try:
            return self._follow(process, listener, output, decide, start, kill_after_s)
        finally:
            listener.close()

    def _follow(
        self, process: int, listener: Listener, output: Path, decide: Decide | None, start: float, kill_after_s: float | None
    ) -> Ended:
        operations: list[Operation] = []
        orphans: list[str] = []
        ended: float | None = None
        while True:
            now = time.monotonic()
            if kill_after_s is not None and now - start > kill_after_s:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                kill_after_s = None
            if ended is None and _is_dead(process):
                ended = now
            if ended is None and now - start > _HANGS_S:
                _kill_session(process)
                raise TimeoutError(f"the command hangs after {len(operations)} operations: {(output / 'err').read_text()}")
            if ended is not None and now - ended > _ENDING_S and not orphans:
                orphans += _kill_session(process)
            try:
                operation = listener.next(_QUIET_S)
            except TimeoutError:
                continue
            except EOFError:
                break
            if operation is None:
                continue
            operations.append(operation)
            code = decide(len(operations) - 1, operation, process) if decide is not None else None
            if code is None:
                listener.allow(operation)
            else:
                listener.refuse(operation, code)
        over = time.monotonic()
        ending = json.loads(self._socket.recv(_MESSAGE))
        said = [(output / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")]
        return Ended(ending["status"], *said, tuple(operations), over - start, ending["processor_s"], tuple(orphans))


def _stat(process: int) -> list[str]:
    """State and parent, group and session of a process, as the kernel writes them."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _is_dead(process: int) -> bool:
    try:
        return _stat(process)[0] == "Z"
    except OSError:
        return True


def _kill_session(leader: int) -> list[str]:
    """Kill all processes of a session; returns their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = _stat(int(entry.name))[:4]
            if int(session) == leader and state != "Z":
                found.append(f"{entry.name}: " + (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
                os.kill(int(entry.name), signal.SIGKILL)
    return found


# -- the process that is forked from -----------------------------------------------------------------------------------


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns in the children, with the request; None when there are no more."""
    while text := connection.recv(_MESSAGE):
        request: dict[str, Any] = json.loads(text)
        gc.collect()
        gc.freeze()  # so that collections of the children do not touch, and thereby copy, all that is imported
        process = os.fork()
        if not process:
            os.setsid()
            return request
        _, status, used = os.wait4(process, 0)
        _import(Path(request["output"]) / _MODULES)
        connection.send(json.dumps({"status": os.waitstatus_to_exitcode(status), "processor_s": used.ru_utime + used.ru_stime}).encode())
    return None


def _import(names: Path) -> None:
    """Import what a child had imported at its end, for those to come."""
    try:
        told = json.loads(names.read_text())
    except (OSError, ValueError):  # it was killed before it had told
        return
    for name in told:
        if name not in sys.modules:
            with suppress(Exception):  # a module that its package removed, or that only works in the process that it was made for
                __import__(name)


def _become(request: dict[str, Any], connection: socket.socket) -> None:
    """Make this process one as a shell starts it, and tell who listens."""
    output = Path(request["output"])
    for number, (name, flags) in enumerate({os.devnull: os.O_RDONLY, "out": os.O_WRONLY, "err": os.O_WRONLY}.items()):
        opened = os.open(output / name, flags | os.O_CREAT | os.O_TRUNC * bool(number), 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.argv = ["ofa", *request["words"]]
    atexit.register(lambda: (output / _MODULES).write_text(json.dumps(sorted(sys.modules))))
    descriptor = install()
    socket.send_fds(connection, [json.dumps({"process": os.getpid()}).encode()], [descriptor])
    os.close(descriptor)
    connection.close()


def _end(code: Any) -> None:
    """End as Python ends, but without taking all modules apart, which would cost more than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at any end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch  # noqa: F401

    import ofa.cli.main

    _connection = socket.socket(fileno=int(sys.argv[1]))
    _request = _serve(_connection)
    if _request is None:
        _end(0)
    else:
        _become(_request, _connection)
        try:
            ofa.cli.main.run()
        except SystemExit as _stop:
            _end(_stop.code)
