"""The near end of a connection to an agent: JSON lines over the pipes of a subprocess (Python or ssh).

The input is untrusted: lines are bounded, an answer must be to the last request, and text is cleaned before it becomes part of a message.
``devices.answers`` validates results and notes.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, NoReturn

from devices.answers import NonsenseError
from ofa.errors import DeviceError
from ofa.reasons import one_line, plain_words

__all__ = ["LONGEST_LINE", "Connection", "ConnectionLostError", "LineLostError"]

LONGEST_LINE = 4 << 20
"""Longest line in bytes, in either direction."""

_LAST_LINES, _LONGEST_COMPLAINT = 20, 4096
_LINES_AHEAD = 8
_ENDING_S = 2.0
"""Seconds that a process may take to end after it was killed, or after the end of its output."""

_WRONG_USAGE, _NO_SUCH_COMMAND, _KILLED, _SIGNALED = 2, 127, 9, 128
_REMEDIES = {
    _WRONG_USAGE: "check that 'python' under [transport] is Python 3.10 or newer",
    _NO_SUCH_COMMAND: "check 'python' under [transport]",
    -_KILLED: "a system that runs out of memory does that: free some, or leave this network out",
}
"""Next steps by exit status."""


class ConnectionLostError(DeviceError):
    """The agent died or was silent for too long.

    Attributes:
        note: the last note of the request; empty if there was none.
    """

    def __init__(self, message: str, note: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.note = dict(note)


class LineLostError(ConnectionLostError):
    """The connection to the device broke, not because of the network being timed; the message is a clause without a remedy."""


def _never(status: int, words: str) -> bool:
    del status, words
    return False


class Connection:
    """A running agent, which ends when the ``with`` block is left.

    Args:
        command: command that starts the agent; its stdin and stdout carry one JSON object per line.
        environment: environment of the process.
        place: words for its machine, for messages.
        greeting: a first line to send.
        line_lost: tells from the exit status and the last lines of stderr whether the connection broke, rather than the agent died.
        heartbeat_s: send an empty line after so many seconds without another, so that the far end does not end the agent; None never.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        place: str,
        greeting: str | None = None,
        line_lost: Callable[[int, str], bool] = _never,
        heartbeat_s: float | None = None,
    ) -> None:
        self.place = place
        self._line_lost, self._heartbeat_s = line_lost, heartbeat_s
        self._answered = False
        self._requests = 0
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                # A session of its own: the agent sets its own priority, and Ctrl-C reaches only this process.
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                f"the agent must start on {place}, but '{command[0]}' does not: {(error.strerror or str(error)).lower()}; check the path"
            ) from error
        self._lines: queue.Queue[bytes] = queue.Queue(maxsize=_LINES_AHEAD)
        self._unsent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._complaints: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._threads = [
            threading.Thread(target=work, args=(pipe,), daemon=True)
            for work, pipe in (
                (self._read, self._process.stdout),
                (self._listen, self._process.stderr),
                (self._write, self._process.stdin),
            )
        ]
        for thread in self._threads:
            thread.start()
        if greeting is not None:
            self._unsent.put(greeting.encode() + b"\n")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def request(self, message: Mapping[str, Any], *, on_note: Callable[[dict[str, Any]], None], silence_limit_s: float) -> Any:
        """Send one request and wait for its result; see ``Agent``. A process that is silent for too long is killed.

        Raises:
            LineLostError: the connection to the device broke.
            NonsenseError: a line is no valid answer to this request.
        """
        note: dict[str, Any] = {}
        self._requests += 1
        self._unsent.put(json.dumps({**message, "id": self._requests}).encode() + b"\n")
        doing = f"answering '{message.get('op')}'" if self._answered else "starting"
        while True:
            now_doing = one_line(str(note.get("doing", doing)))
            reply = self._reply(now_doing, note, silence_limit_s)
            self._answered = True
            if "error" in reply:
                raise DeviceError(one_line(reply["error"]))
            if "result" in reply:
                return reply["result"]
            note = {key: value for key, value in reply.items() if key != "id"}
            on_note(note)

    def close(self) -> None:
        """Kill the agent with its process group: children that a library started would keep the pipes open."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._unsent.put(None)
        end = time.monotonic() + _ENDING_S
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):  # a reader may wait for room
                while True:
                    self._lines.get_nowait()
            for thread in self._threads:
                thread.join(timeout=0.02)
        with contextlib.suppress(queue.Full):  # the end marker may have been dropped, but a waiting reader needs it
            self._lines.put_nowait(b"")
        if any(thread.is_alive() for thread in self._threads):
            return  # a process outside of the group still holds a pipe; it must not be killed
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent text of a process that has died
                    pipe.close()

    def _reply(self, doing: str, note: Mapping[str, Any], silence_limit_s: float) -> dict[str, Any]:
        """The next line, which must be a valid answer to the last request."""
        try:
            line = self._lines.get(timeout=silence_limit_s)
        except queue.Empty:
            self.close()
            raise ConnectionLostError(
                f"a device must answer within {silence_limit_s:g} s, but {self.place} was silent while {doing}; leave this network out, "
                "or allow more time",
                note,
            ) from None
        if len(line) > LONGEST_LINE:
            self._refuse(line)
        if not line.endswith(b"\n"):  # an incomplete line is no answer
            self._end(doing, note)
        try:
            reply = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict) or not self._is_answer(reply):
            self._refuse(line)
        return dict(reply)

    def _is_answer(self, reply: Mapping[str, Any]) -> bool:
        """Whether an object is a result, an error or a note of the last request."""
        kinds = [kind for kind in ("result", "error", "doing") if kind in reply]
        if len(kinds) != 1 or not (kinds == ["result"] or isinstance(reply[kinds[0]], str)):
            return False
        # The bootstrap reports errors without a request's id.
        starting = not self._answered and kinds == ["error"] and "id" not in reply
        return starting or (type(reply.get("id")) is int and reply["id"] == self._requests)

    def _refuse(self, line: bytes) -> NoReturn:
        self.close()
        said = one_line(line[:320].decode(errors="replace"), longest=80)
        rule = f"an agent must answer each request once, in JSON lines of at most {LONGEST_LINE >> 20} MiB, but {self.place} said '{said}'"
        if not self._answered:
            raise DeviceError(f"{rule}; make sure that nothing else prints when a program starts there")
        raise NonsenseError(rule)

    def _end(self, doing: str, note: Mapping[str, Any]) -> NoReturn:
        """Raise the error of a process whose output has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_ENDING_S)
        self.close()
        status, complaints = self._process.returncode, [plain_words(line.decode(errors="replace")) for line in self._complaints]
        said = next((words for words in reversed(complaints) if words), "")
        last_words = f" ('{said}')" if said else ""
        if self._line_lost(status, "\n".join(complaints)):
            rule, lost = f"the agent must start on {self.place}", "the connection"
            if self._answered:
                rule, lost = f"the connection to {self.place} must last", "it"
            raise LineLostError(f"{rule}, but {lost} was lost while {doing}{last_words}", note)
        if status - _SIGNALED in signal.valid_signals():  # a shell's encoding of a signal
            status = _SIGNALED - status
        if not self._answered:
            remedy = _REMEDIES.get(status, "check that the device answers")
            raise DeviceError(f"the agent must start on {self.place}, but it died {_manner(status)} while starting{last_words}; {remedy}")
        manner, remedy = _manner(status), _REMEDIES.get(status, "leave this network out")
        raise ConnectionLostError(
            f"the runtime must survive every network, but on {self.place} it died {manner} while {doing}{last_words}; {remedy}", note
        )

    def _read(self, pipe: IO[bytes]) -> None:
        """Read lines into a bounded queue; reading stops at a line that is too long."""
        line = b"\n"
        while line.endswith(b"\n"):
            line = pipe.readline(LONGEST_LINE + 1)
            self._lines.put(line)

    def _listen(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(_LONGEST_COMPLAINT):
            self._complaints.append(line)

    def _write(self, pipe: IO[bytes]) -> None:
        """Write queued lines in a thread of its own, so that a device that reads nothing does not block the silence timeout."""
        with contextlib.suppress(OSError):  # the process has died; the reader reports its last words
            while True:
                try:
                    line = self._unsent.get(timeout=self._heartbeat_s)
                except queue.Empty:
                    line = b"\n"
                if line is None:
                    return
                pipe.write(line)
                pipe.flush()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _manner(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    words = signal.strsignal(-status)
    return f"by signal {-status}" + (f", {words.lower()}," if words else "")
