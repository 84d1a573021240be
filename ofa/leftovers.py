"""Temporary files and folders, locked by their creator while it runs; unlocked ones are leftovers of killed processes and are removed.

The lock is ``flock`` of the operating system, which ends with the process, however that ends. Where the system or a network drive lacks
``flock``, a leftover cannot be recognized, and nothing is removed.
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
"""Characters of the target's name in the name of its temporary folder, which leaves room for the suffix even after the longest names."""
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.ofa\.part", re.DOTALL)
_FOLDER = re.compile(r"ofa-[a-z]*-?[a-z0-9_]{8}\.held")

_DAY_S = 24 * 3600.0
"""Earlier versions held no locks: their temporary files count as leftovers after a day without change, their folders after a week."""
_BEFORE = re.compile(r"ofa-(?:verify-|study-)?[a-z0-9_]{8}")
_BEFORE_HELD = re.compile(r"[0-9a-f]{64}\.\w+|study\.journal.*")
"""The only contents of such folders; a folder with a similar name and other contents is not ours."""


@contextmanager
def held_part(target: Path) -> Iterator[Path]:
    """Yield a new locked folder beside ``target`` in which to prepare its new content; it is removed at the end.

    It is a folder even for a single file, because libraries create temporary files of their own beside the file that they write.

    Raises:
        OSError: the folder cannot be created.
    """
    with _held(lambda: target.with_name(f".{target.name[:_LONGEST_PREFIX]}.{secrets.token_hex(4)}.ofa.part")) as part:
        yield part


@contextmanager
def temporary_folder(purpose: str = "") -> Iterator[Path]:
    """Yield a new folder in the system's temporary folder, removed at the end; leftovers of killed processes are removed first.

    Args:
        purpose: a word of lower-case letters for the folder's name.

    Raises:
        OSError: the folder cannot be created.
    """
    remove_dead_folders()
    prefix = f"ofa-{purpose}-" if purpose else "ofa-"
    with _held(lambda: Path(tempfile.gettempdir(), f"{prefix}{secrets.token_hex(4)}.held"), mode=0o700) as folder:
        yield folder


def remove_parts(folder: Path, target: Path | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder, and the files that earlier versions left for ``target``."""
    before = None if target is None else re.compile(rf"\.{re.escape(target.name[:_LONGEST_PREFIX])}\.[a-z0-9_]{{8}}\.part", re.DOTALL)
    for path in _entries(folder):
        if _PART.fullmatch(path.name) or (before is not None and before.fullmatch(path.name) and _unchanged_s(path) > _DAY_S):
            _remove_dead(path)


def remove_dead_folders() -> None:
    """Remove the temporary folders that killed processes of this user left."""
    for path in _entries(Path(tempfile.gettempdir())):
        if _FOLDER.fullmatch(path.name) or (_BEFORE.fullmatch(path.name) and _is_of_before(path)):
            _remove_dead(path)


@contextmanager
def _held(name: Callable[[], Path], mode: int = 0o777) -> Iterator[Path]:
    """Yield a new locked folder, and remove it at the end, even if a signal's exception interrupts the removal.

    Args:
        name: draws a candidate path at each call.
        mode: permissions of the folder.
    """
    while True:
        path, is_ours, lock = name(), True, None
        try:
            try:
                path.mkdir(mode)
            except FileExistsError:
                is_ours = False
                continue
            lock = _lock(path)
            if lock is None:  # another process found it before it was locked, and took it for a leftover
                continue
            yield path
            return
        finally:
            try:
                if is_ours:
                    _remove(path)
            finally:  # again, because a signal may have interrupted the first
                if is_ours:
                    _remove(path)
                if lock is not None:
                    lock.close()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock an existing file or folder, so that other processes do not take it for a leftover; it may be renamed meanwhile."""
    lock = _lock(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def is_of_the_dead(path: Path) -> bool:
    """Whether a file or folder exists and no process has locked it."""
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
    """An open file or folder; ``held`` is False where the system has no such locks."""

    descriptor: int
    held: bool

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _lock(path: Path) -> _Lock | None:
    """Lock a path; None if another process has locked it, or it no longer exists.

    Raises:
        OSError: the path cannot be opened.
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
    """Remove a file or folder, as far as this user's permissions allow."""
    with suppress(OSError):
        path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder)]
    except OSError:  # a missing folder is reported by the write that follows
        return []


def _is_of_before(folder: Path) -> bool:
    held = _entries(folder)
    return folder.is_dir() and all(_BEFORE_HELD.fullmatch(each.name) for each in held) and _unchanged_s(folder) > 7 * _DAY_S


def _unchanged_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
