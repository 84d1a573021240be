"""One writer of a file or folder at a time, for the whole of reading, changing and writing it."""

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
_LONGEST_NAME = 255  # bytes, of the file systems that are common
_POLL_S = 0.02
_AT_ONCE_S = 0.05
"""In which a lock that looks held may turn out to be one that its holder is just giving back."""
_MOST_TOLD = 1000
"""Bytes of a lock file that are read: it says who holds it, and nobody vouches for its content."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who writes, as the lock file says it."""

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
"""How many blocks of a thread of a process are inside of each lock, by its target and both their numbers."""


@contextmanager
def writing(path: str | os.PathLike[str], doing: str = "writing it", *, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only writer of a file or folder inside the block.

    A block inside of another one of the same thread, for the same path, is let in. Other threads and other processes, on this machine or
    on another with which the folder is shared, are refused. The lock is a file beside the path, which the system gives back when its
    holder ends, however that ends; readers need none, because files take their place whole.

    Args:
        path: what is written; it need not be there.
        doing: what the writer does, for whoever is refused: "building a table".
        wait_s: seconds in which another writer may end; by default it is told at once.

    Raises:
        FileError: somebody else writes it, the folder is not there or cannot be written, or its file system has no locks.
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
        # While it is held: whoever opened this file before finds, once it has the lock, that the file has no name, and opens the next.
        with suppress(OSError):
            lock_of(target).unlink()
        lock.release()


def lock_of(target: str | os.PathLike[str]) -> Path:
    """The file that says, while somebody holds it, that ``target`` is being written."""
    folder, name = os.path.split(os.path.realpath(target))
    if len(os.fsencode(name)) > _LONGEST_NAME - len(_ENDING) - 1:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return Path(folder) / f".{name}{_ENDING}"


def _acquired(path: str | os.PathLike[str], target: str, holder: _Holder, wait_s: float) -> FileLock:
    place = lock_of(target)
    if not place.parent.is_dir():  # which a FileLock would make
        check_folder(Path(path))
    # For every user of the folder, and without a fallback to files that only mean a lock by being there: those of the dead would hold for
    # ever.
    lock = FileLock(place, mode=0o666, thread_local=False, fallback_to_soft=False, on_acquired=lambda descriptor: _sign(descriptor, holder))
    try:
        lock.acquire(timeout=max(wait_s, _AT_ONCE_S), poll_interval=_POLL_S)
    except Timeout as error:
        other = _holder_of(place)
        raise _refused(path, "another process is writing it" if other is None else other.words) from error
    except (OSError, NotImplementedError) as error:
        check_folder(Path(path))
        raise FileError(
            f"a file or folder must be locked while it is written, but '{place}' cannot be: {reason_of(error)}; choose a place on a local "
            "disk, or on a network file system with locks"
        ) from error
    return lock


def _refused(path: str | os.PathLike[str], who: str) -> FileError:
    return FileError(f"'{os.fspath(path)}' must have one writer at a time, but {who}; wait until that has ended, or name another place")


def _sign(descriptor: int, holder: _Holder) -> None:
    """Write into the lock file who holds it, for others to be told; a full disk is no reason not to hold it."""
    text = json.dumps(asdict(holder)).encode()
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text)


def _holder_of(place: Path) -> _Holder | None:
    """Who holds a lock; None if its file does not say so in plain words."""
    try:
        with open(os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            said: Any = json.loads(file.read(_MOST_TOLD))
        holder = _Holder(**said)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    plain = all(isinstance(text, str) and text.isprintable() for text in (holder.host, holder.doing, holder.since))
    return holder if plain and type(holder.process) is int else None
