"""Atomic exchange of two folders by one system call, so that both names exist at every moment."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["exchange"]

_HERE = {"linux": -100, "darwin": -2}
"""AT_FDCWD: paths are relative to the current folder, or absolute."""
_CALL = {"linux": "renameat2", "darwin": "renameatx_np"}
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux (linux/fs.h) and RENAME_SWAP of macOS (sys/stdio.h)."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths on one file system atomically.

    Returns:
        Whether they were exchanged. Where the system or the file system cannot do it, nothing changes and the result is False.
    """
    if sys.platform not in _CALL:
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), _CALL[sys.platform], None)
    if call is None:
        return False
    here = _HERE[sys.platform]
    done: int = call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_EXCHANGE))
    return done == 0
