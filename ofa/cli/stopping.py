"""Signals while a command works: what is at hand is ended and kept, temporary files go, and one sentence says how to go on."""

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
"""So long after a signal that ends the command further ones are not heard, so that none interrupts what removes its files."""


class Stop:
    """Whether the command was asked to stop, and by which signal.

    Attributes:
        words: the sentence that the command ends with if it is stopped now.
    """

    def __init__(self) -> None:
        self.words = "interrupted; files that were complete are kept, nothing is left half-written"
        self._signal = 0
        self._waits = False
        self._deaf_until = 0.0

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
        if time.monotonic() < self._deaf_until:
            return
        first = not self._signal
        self._signal = number
        if not (self._waits and first):
            self._deaf_until = time.monotonic() + _CLEANING_S
            raise self.error()


_stop: Stop | None = None
"""Of the command that runs in this process."""


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside the block signals go to the ``Stop`` that it yields, the same in a block within; a signal that is ignored stays so (nohup).

    Outside the main thread, where none arrive, nothing changes.
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
