"""Atomic writes of files and folders, and error messages for failed reads and writes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ofa.errors import FileError, OfaError
from ofa.exchange import exchange
from ofa.leftovers import held, held_part, is_of_the_dead, remove_dead_folders, remove_parts, temporary_folder
from ofa.seal import BLANK_SEAL, SEAL_KEY, seal

__all__ = [
    "make_folder",
    "reason_of",
    "remove_dead_folders",
    "remove_parts",
    "replacing",
    "replacing_folder",
    "settle",
    "sync_folder",
    "temporary_folder",
    "unwritable",
    "write_json",
]

_CODE = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
"""How libraries in other languages quote the error code of the operating system."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; if the block succeeds, the temporary file replaces ``path`` atomically.

    A file with a blank seal is sealed first (``ofa.seal``). If the block raises, the temporary file is removed and ``path`` stays
    unchanged. If the process is killed, the next writer into that folder removes the temporary file. The content is on disk (fsync)
    before the name changes.

    Args:
        path: the file to write; it may exist.

    Raises:
        FileError: the folder does not exist or cannot be written, the disk is full, or ``path`` exists and is no plain file.
    """
    target = Path(path)
    with ExitStack() as stack:
        try:
            if target.exists() and not target.is_file():
                kind = "a folder" if target.is_dir() else "no plain file"
                raise FileError(f"'{target}' must be a file to be written, but it is {kind}; name a file")
            remove_parts(target.parent, target)
            part = stack.enter_context(held_part(target))
            temporary = part / target.name
            temporary.touch()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise unwritable(target, error) from error
        with _told_of(target, temporary):
            yield temporary
            temporary.chmod(part.stat().st_mode & 0o666)  # some libraries create files that only the owner can read
            seal(temporary)
            _sync(temporary)
            temporary.replace(target)
            sync_folder(target.parent)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside ``path``; if the block succeeds, the new folder replaces ``path`` and the old folder is removed.

    Whenever the process is killed, ``path`` is the complete old folder or the complete new one. Files in the new folder must be
    written by ``replacing``. Where the system cannot exchange two folders atomically, ``path`` is missing between two renames;
    readers repair that with ``settle``.

    Args:
        path: the folder to write; it may exist.

    Raises:
        FileError: the parent folder does not exist or cannot be written, or the disk is full.
    """
    target = Path(path)
    with ExitStack() as stack:
        try:
            settle(target)
            remove_parts(target.parent, target)
            temporary = stack.enter_context(held_part(target))
        except (OSError, ValueError) as error:
            raise unwritable(target, error) from error
        with _told_of(target, temporary):
            yield temporary
            for folder in (temporary, *(each for each in temporary.rglob("*") if each.is_dir())):
                sync_folder(folder)
            _exchange_or_rename(temporary, target)
            sync_folder(target.parent)


def settle(folder: str | os.PathLike[str]) -> None:
    """Restore a folder that a process renamed aside in ``replacing_folder`` before it was killed.

    Raises:
        FileError: the folder cannot be renamed.
    """
    try:
        target = Path(folder).absolute()
        if not target.name:  # the root of a file system, which is never replaced
            return
        aside = _aside(target)
        if aside.is_dir() and is_of_the_dead(aside):
            if target.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(target)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error


def _exchange_or_rename(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
    elif not exchange(temporary, target):
        aside = _aside(target)
        with held(target):
            target.rename(aside)
            try:
                temporary.rename(target)
            except BaseException:
                aside.rename(target)
                raise
            shutil.rmtree(aside)


def _aside(target: Path) -> Path:
    """Name of a folder between the two renames: a hash of its own name, so that it is never too long."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".{digest}.ofa.aside")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder and its missing parents; an existing folder is fine.

    Raises:
        FileError: the folder cannot be created.
    """
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            sync_folder(each.parent)
    except (OSError, ValueError) as error:
        raise FileError(f"'{folder}' must be a folder that can be created, but {reason_of(error)}; choose another") from error


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush the directory entries of a folder to disk (fsync), on POSIX systems.

    Raises:
        OSError: the disk fails.
    """
    if os.name == "posix":
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _told_of(target: Path, temporary: Path) -> Iterator[None]:
    """Turn errors of the operating system into errors about ``target``; messages name ``target`` instead of the temporary path."""
    try:
        yield
    except OfaError as error:
        error.args = (str(error).replace(str(temporary), str(target)), *error.args[1:])
        raise
    except Exception as error:
        if not isinstance(error, OSError) and _code(error) is None:
            raise
        raise unwritable(target, error) from error


def unwritable(target: str | os.PathLike[str], error: Exception) -> FileError:
    """The error to raise when a file or folder cannot be written.

    Args:
        target: the file or folder.
        error: any exception raised while writing it.
    """
    return FileError(f"'{os.fspath(target)}' must be writable, but {reason_of(error)}; choose another place or make room there")


def reason_of(error: Exception) -> str:
    """Why a file could not be read or written, in a few words.

    The words are the operating system's if the error has an error code, otherwise the first line of the error's message.
    """
    code = _code(error)
    words = os.strerror(code) if code is not None else (str(error).strip() or type(error).__name__).splitlines()[0]
    return words[:1].lower() + words[1:]


def _code(error: Exception) -> int | None:
    """The error code of the operating system behind ``error``; None if there is none."""
    if isinstance(error, FileError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _CODE.search(str(error))
    return int(found[1]) if found else None


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Write ``value`` as indented JSON, atomically; an object gets a seal as its first key.

    Raises:
        FileError: as in ``replacing``.
    """
    sealed = {SEAL_KEY: BLANK_SEAL, **value} if isinstance(value, dict) else value
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")
