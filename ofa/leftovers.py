"""Temporary files and folders whose maker, as long as it lives, holds a lock on them: what nobody holds is of the dead, and removed.

The lock is the system's own (``flock``): it ends with the process, however that ends. Where a system or a network drive has no such
lock, nothing can be told of the maker, and nothing is removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["held", "held_part", "is_of_the_dead", "remove_dead_folders", "remove_parts", "temporary_folder"]

_LONGEST_PREFIX = 32
"""Characters of a name in that of its part: a name of the greatest length allowed must leave room for the rest."""
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.ofa\.part", re.DOTALL)
_FOLDER = re.compile(r"ofa-[a-z]*-?[a-z0-9_]{8}\.held")

_DAY_S = 24 * 3600.0
"""Earlier versions held no locks: a part of theirs that has not grown for a day is of the dead, and a folder after a week."""
_BEFORE = re.compile(r"ofa-(?:verify-|study-)?[a-z0-9_]{8}")
_BEFORE_HELD = re.compile(r"[0-9a-f]{64}\.\w+|study\.journal.*")
"""All that was in such folders; another folder whose name looks alike is not ours."""


@contextmanager
def held_part(target: Path) -> Iterator[Path]:
    """Yield a new folder beside ``target`` for what is to become it; what is left at that path is removed in the end.

    A folder also for one file, because libraries that write files make temporary ones of their own beside them.

    Raises:
        OSError: it cannot be made.
    """
    with _held(lambda: target.with_name(f".{target.name[:_LONGEST_PREFIX]}.{secrets.token_hex(4)}.ofa.part")) as part:
        yield part


@contextmanager
def temporary_folder(purpose: str = "") -> Iterator[Path]:
    """Yield a folder of the system's for temporary files, which is removed in the end; those of the dead are removed first.

    Args:
        purpose: a word of lower-case letters for its name.

    Raises:
        OSError: it cannot be made.
    """
    remove_dead_folders()
    prefix = f"ofa-{purpose}-" if purpose else "ofa-"
    with _held(lambda: Path(tempfile.gettempdir(), f"{prefix}{secrets.token_hex(4)}.held"), mode=0o700) as folder:
        yield folder


def remove_parts(folder: Path, target: Path | None = None) -> None:
    """Remove the parts that dead processes left in a folder, and those of ``target`` that earlier versions did."""
    before = None if target is None else re.compile(rf"\.{re.escape(target.name[:_LONGEST_PREFIX])}\.[a-z0-9_]{{8}}\.part", re.DOTALL)
    for path in _entries(folder):
        if _PART.fullmatch(path.name) or (before is not None and before.fullmatch(path.name) and _unchanged_s(path) > _DAY_S):
            _remove_dead(path)


def remove_dead_folders() -> None:
    """Remove the folders for temporary files that dead processes of this user left."""
    for path in _entries(Path(tempfile.gettempdir())):
        if _FOLDER.fullmatch(path.name) or (_BEFORE.fullmatch(path.name) and _is_of_before(path)):
            _remove_dead(path)


@contextmanager
def _held(name: Callable[[], Path], mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder of one of the names, held, and remove it in the end, whenever a signal's exception comes."""
    while True:
        path, is_ours, lock = name(), True, None
        try:
            try:
                path.mkdir(mode)
            except FileExistsError:
                is_ours = False
                continue
            lock = _lock(path)
            if lock is None:  # another process found it before it was held, and takes it for one of the dead
                continue
            yield path
            return
        finally:
            try:
                if is_ours:
                    _remove(path)
            finally:  # again, because the first may have been cut off
                if is_ours:
                    _remove(path)
                if lock is not None:
                    lock.close()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file or folder that is there, so that others see that its user lives; it may change its name meanwhile."""
    lock = _lock(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def is_of_the_dead(path: Path) -> bool:
    """Whether a file or folder is there that nobody holds."""
    lock = _lock(path)
    if lock is not None:
        lock.close()
    return lock is not None and lock.held


def _remove_dead(path: Path) -> None:
    with suppress(OSError):  # of another user
        lock = _lock(path)
        if lock is not None:
            if lock.held:
                _remove(path)
            lock.close()


@dataclass(frozen=True)
class _Lock:
    """An open file or folder, and whether it is held: it is not where the system has no such locks."""

    descriptor: int
    held: bool

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _lock(path: Path) -> _Lock | None:
    """The lock of what a path names; None if another process has it, or it is gone.

    Raises:
        OSError: it cannot be opened.
    """
    if fcntl is None:
        return _Lock(-1, held=False)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return _Lock(descriptor, held=True)
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        return _Lock(descriptor, held=False)
    os.close(descriptor)
    return None


def _remove(path: Path) -> None:
    """Remove a file or folder, or as much of it as this user may."""
    with suppress(OSError):
        path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder)]
    except OSError:  # it is not there, which whoever writes there will say
        return []


def _is_of_before(folder: Path) -> bool:
    held = _entries(folder)
    return folder.is_dir() and all(_BEFORE_HELD.fullmatch(each.name) for each in held) and _unchanged_s(folder) > 7 * _DAY_S


def _unchanged_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
