"""Signals during a command: the present step is finished and kept, temporary files are removed, and a message says how to continue."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ofa.cli.exits import Stopped

__all__ = ["Stop", "stoppable"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_CLEANING_S = 10.0
"""Seconds after a fatal signal in which further ones are ignored, so that they do not interrupt the removal of temporary files."""


class Stop:
    """Whether the command was asked to stop, and by which signal.

    Attributes:
        words: final message if the command is stopped now.
    """

    def __init__(self) -> None:
        self.words = "interrupted; files that were complete are kept, nothing is left half-written"
        self._signal = 0
        self._waits = False
        self._deaf_until = 0.0

    def asked(self) -> bool:
        """Whether a signal asked the command to stop."""
        return self._signal != 0

    def error(self) -> Stopped:
        """The exception to raise after the present work is kept."""
        return Stopped(self.words, self._signal or signal.SIGINT)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block the first signal only sets ``asked``, which the block polls; a second one ends it at once."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if time.monotonic() < self._deaf_until:
            return
        first = not self._signal
        self._signal = number
        if not (self._waits and first):
            self._deaf_until = time.monotonic() + _CLEANING_S
            raise self.error()


_stop: Stop | None = None
"""The stop state of the command in this process."""


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside the block signals go to the yielded ``Stop``; nested blocks share it. Ignored signals stay ignored (nohup).

    Outside the main thread, where no signals arrive, nothing changes.
    """
    global _stop
    if _stop is not None:
        words = _stop.words
        yield _stop
        _stop.words = words
        return
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop.take) for number in heard}
    _stop = stop
    try:
        yield stop
    finally:
        _stop = None
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
