"""Ctrl-C and SIGTERM while a command works: what is at hand is ended and kept, and one sentence says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ofa.cli.exits import Stopped

__all__ = ["Stop", "stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the command was asked to stop, and by which signal.

    Attributes:
        words: the sentence that the command ends with if it is stopped now.
    """

    def __init__(self) -> None:
        self.words = "interrupted; files that were complete are kept, nothing is left half-written"
        self._signal = 0
        self._waits = False

    def asked(self) -> bool:
        """Whether it was."""
        return self._signal != 0

    def error(self) -> Stopped:
        """What to raise once the work at hand is kept."""
        return Stopped(self.words, self._signal or signal.SIGINT)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block the first signal only sets ``asked``, which the block looks at; a second one ends it at once."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        first = not self._signal
        self._signal = number
        if not (self._waits and first):
            raise self.error()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside the block signals go to the ``Stop`` that it yields; outside the main thread, where none arrive, nothing changes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.take) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
