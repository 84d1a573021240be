"""Waiting behaviour of OpenMP threads."""

from __future__ import annotations

import os

__all__ = ["let_threads_sleep"]


def let_threads_sleep() -> None:
    """Let waiting OpenMP threads sleep instead of spin, unless the user has set it; call this before torch is imported.

    Spinning is good for training, whose steps are long. A search computes for less than a millisecond at a time; with spinning threads it
    was ten times slower when another process used one of the cores for a moment.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
