"""Progress callbacks: long work reports its state to the caller; the library itself prints nothing."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Callback with the units of work done so far, their total, and a few words on the current state."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def silent(done: int, total: int, text: str = "") -> None:
    """The default callback, which does nothing."""
