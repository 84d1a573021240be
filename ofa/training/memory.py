"""Keeps freed memory in the process, so that training steps reuse it for activations instead of asking the kernel again."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees; call it before the first tensor is made.

    The activations of a training step are large, and the C library returns them to the kernel as soon as they are freed. The next
    step then pays a page fault for every page, which on virtual machines can cost more than the arithmetic. The setting is
    process-wide, so the library never makes it by itself; the command line makes it for commands that train.

    Returns:
        Whether the C library accepted the setting (glibc on Linux); elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena: memory that a thread frees in an arena of its own is kept too, but no other thread can use it.
    settings = ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, _LARGEST), (_M_ARENA_MAX, 1))
    taken = [bool(mallopt(setting, value)) for setting, value in settings]
    return all(taken)
