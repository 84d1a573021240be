"""Exclusive locks: one writer of a file or folder at a time, from reading through changing to writing it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ofa.errors import FileError
from ofa.files import reason_of, unwritable
from ofa.outputs import check_folder

__all__ = ["lock_of", "writing"]

_ENDING = ".lock"
_LONGEST_NAME = 255  # bytes, on common file systems
_POLL_S = 0.02
_AT_ONCE_S = 0.05
"""Least time to wait for a lock, because its holder may be releasing it at that moment."""
_MOST_TOLD = 1000
"""Bytes of a lock file that are read at most: its content, which names the holder, is not trusted."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """The holder of a lock, as its lock file states it."""

    process: int
    host: str
    doing: str
    since: str

    @property
    def words(self) -> str:
        here = self.host == socket.gethostname()
        who = f"process {self.process}{'' if here else f' on {self.host}'}"
        if here and self.process == os.getpid():
            who = "another thread of this process"
        return f"{who} has been {self.doing} since {self.since}"


_inside: dict[tuple[str, int, int], int] = {}
"""Nesting depth of ``writing`` blocks, by target, process id and thread id."""


@contextmanager
def writing(path: str | os.PathLike[str], doing: str = "writing it", *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the exclusive write lock of a file or folder inside the block.

    The lock is re-entrant per thread. Other threads and processes are refused, on this machine or on another that shares the folder. The
    lock is on a file beside the path; the system releases it when its holder ends, however that ends. Readers need no lock, because
    files are replaced atomically.

    Args:
        path: the file or folder to write; it need not exist.
        doing: what the writer does, for the message to a refused process, such as "building a table".
        wait_s: seconds to wait for another writer; by default the error comes at once.

    Raises:
        FileError: another writer holds the lock, the folder does not exist or cannot be written, or its file system has no locks.
    """
    try:
        target = os.path.realpath(path)
    except ValueError as error:  # a name that no file can have
        raise unwritable(path, error) from error
    owner = (target, os.getpid(), threading.get_ident())
    if owner in _inside:
        _inside[owner] += 1
        try:
            yield
        finally:
            _inside[owner] -= 1
        return
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = _Holder(process=os.getpid(), host=socket.gethostname(), doing=doing, since=now)
    lock = _acquired(path, target, holder, wait_s)
    try:
        _inside[owner] = 1
        yield
    finally:
        _inside.pop(owner, None)
        # Removed while locked: a process that had opened this file finds, once it has the lock, that the file is gone, and opens a new one.
        with suppress(OSError):
            lock_of(target).unlink()
        lock.release()


def lock_of(target: str | os.PathLike[str]) -> Path:
    """The lock file of ``target``."""
    folder, name = os.path.split(os.path.realpath(target))
    if len(os.fsencode(name)) > _LONGEST_NAME - len(_ENDING) - 1:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return Path(folder) / f".{name}{_ENDING}"


def _acquired(path: str | os.PathLike[str], target: str, holder: _Holder, wait_s: float) -> FileLock:
    place = lock_of(target)
    if not place.parent.is_dir():  # FileLock would create it
        check_folder(Path(path))
    # The mode lets every user of the folder lock. No fallback to locks that consist in a file's existence: they would outlive a kill.
    lock = FileLock(place, mode=0o666, thread_local=False, fallback_to_soft=False, on_acquired=lambda descriptor: _sign(descriptor, holder))
    try:
        lock.acquire(timeout=max(wait_s, _AT_ONCE_S), poll_interval=_POLL_S)
    except Timeout as error:
        other = _holder_of(place)
        raise _refused(path, "another process is writing it" if other is None else other.words) from error
    except (OSError, NotImplementedError) as error:
        check_folder(Path(path))
        raise FileError(
            f"a file or folder must be locked while it is written, but '{place}' cannot be: {reason_of(error)}; choose a folder on a local "
            "disk, or on a network file system with locks"
        ) from error
    return lock


def _refused(path: str | os.PathLike[str], who: str) -> FileError:
    return FileError(f"'{os.fspath(path)}' must have one writer at a time, but {who}; wait until that has ended, or name another place")


def _sign(descriptor: int, holder: _Holder) -> None:
    """Write the holder into the lock file, for the messages of others; a full disk does not prevent locking."""
    text = json.dumps(asdict(holder)).encode()
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text)


def _holder_of(place: Path) -> _Holder | None:
    """The holder of a lock; None if its file is not readable, valid and printable."""
    try:
        with open(os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            said: Any = json.loads(file.read(_MOST_TOLD))
        holder = _Holder(**said)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    plain = all(isinstance(text, str) and text.isprintable() for text in (holder.host, holder.doing, holder.since))
    return holder if plain and type(holder.process) is int else None
