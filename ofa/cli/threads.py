"""How threads wait for each other."""

from __future__ import annotations

import os

__all__ = ["let_threads_sleep"]


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait; to be called before torch is imported, and a choice of the user's stands.

    They spin otherwise. Training gains by that, as its steps are long; a search computes for less than a millisecond at a time, and
    where another process has one of the cores for a moment, it was ten times slower when its threads spun.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
