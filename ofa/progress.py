"""How long work tells its caller where it stands; the library itself shows nothing."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called with the units of work done so far, their total, and a few words on the current state."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def silent(done: int, total: int, text: str = "") -> None:
    """The progress of a caller who does not ask."""
