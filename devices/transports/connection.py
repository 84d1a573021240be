"""The near end of a conversation with an agent: JSON lines over the pipes of a subprocess (python itself, or ssh)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from ofa.errors import DeviceError
from ofa.reasons import plain_words

__all__ = ["Connection", "ConnectionLostError"]

_ENDED = None
_LAST_LINES = 20
_NO_SUCH_COMMAND, _KILLED = 127, -9
_REMEDIES = {
    _NO_SUCH_COMMAND: "check 'python' under [transport]",
    _KILLED: "a system that runs out of memory does that: free some, or leave this network out",
}
"""Where the exit status tells what to do."""


class ConnectionLostError(DeviceError):
    """The agent died or was silent for too long.

    Attributes:
        note: what it said last while it worked on the request; empty if nothing.
    """

    def __init__(self, message: str, note: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.note = dict(note)


class Connection:
    """A running agent. Leaving the ``with`` block ends it.

    Args:
        command: starts the agent; its stdin and stdout carry one JSON object a line.
        environment: of the process.
        place: where it runs, for messages.
        greeting: a first line to send.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, place: str, greeting: str | None = None
    ) -> None:
        self.place = place
        self._answered = False
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                text=True,
                encoding="utf-8",
                errors="replace",  # whatever else prints over there is shown, not stumbled over
                # A priority of its own; and an interruption from the keyboard is ours to handle, not the agent's.
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                f"the agent must start on {place}, but '{command[0]}' does not: {(error.strerror or str(error)).lower()}; check the path"
            ) from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._complaints: deque[str] = deque(maxlen=_LAST_LINES)
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self._lines.put, True), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, self._complaints.append, False), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        if greeting is not None:
            self._send(greeting)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        """Send one request and wait for its result; see ``Agent``. A process that is silent for too long is ended."""
        note: dict[str, Any] = {}
        self._send(json.dumps(message))
        doing = f"answering '{message.get('op')}'" if self._answered else "starting"
        while True:
            try:
                line = self._lines.get(timeout=silence_limit_s)
            except queue.Empty:
                self.close()
                raise ConnectionLostError(
                    f"a device must answer within {silence_limit_s:g} s, but {self.place} was silent while {note.get('doing', doing)}; "
                    f"leave this network out, or allow more time",
                    note,
                ) from None
            if line is _ENDED or not line.endswith("\n"):  # what was cut off in the middle of a line is no answer either
                raise ConnectionLostError(self._obituary(note.get("doing", doing)), note)
            reply = self._understood(line)
            self._answered = True
            if "error" in reply:
                raise DeviceError(reply["error"])
            if "result" in reply:
                return reply["result"]
            note = reply
            on_note(reply)

    def close(self) -> None:
        """End the agent, at once, and whatever a library has started in its process group, which would keep the pipes open."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                _close_quietly(pipe)

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died; what it said last is read by whoever waits for the answer
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _understood(self, line: str) -> dict[str, Any]:
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or not ("result" in reply or isinstance(reply.get("error"), str) or _is_note(reply)):
            self.close()
            raise DeviceError(
                f"an agent must answer in JSON, but {self.place} said '{line.strip()[:80]}'; "
                "let nothing else print when a program is started there"
            )
        return reply

    def _obituary(self, doing: str) -> str:
        status = self._process.wait()
        for reader in self._readers:
            reader.join()
        said = next((words for line in reversed(self._complaints) if (words := plain_words(line))), "")
        last_words = f" ('{said}')" if said else ""
        if not self._answered:
            remedy = _REMEDIES.get(status, "check that the device answers")
            return f"the agent must start on {self.place}, but it died {_manner(status)} while starting{last_words}; {remedy}"
        remedy = _REMEDIES.get(status, "leave this network out")
        return f"the runtime must survive every network, but on {self.place} it died {_manner(status)} while {doing}{last_words}; {remedy}"

    def _read(self, pipe: IO[str], take: Callable[[str | None], None], tell_end: bool) -> None:
        for line in pipe:
            take(line)
        if tell_end:
            take(_ENDED)


def _is_note(reply: Mapping[str, Any]) -> bool:
    return isinstance(reply.get("doing"), str) and all(isinstance(reply.get(key), int) for key in ("step", "steps"))


def _manner(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    words = signal.strsignal(-status)
    return f"by signal {-status}" + (f", {words.lower()}," if words else "")


def _close_quietly(pipe: IO[str]) -> None:
    with contextlib.suppress(OSError):  # unsent text of a process that has died
        pipe.close()
