"""Opening of plain files only, and reading up to a limit."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from typing import BinaryIO, cast

from ofa.errors import FileError, OfaError
from ofa.files import reason_of
from ofa.seal import check_seal

__all__ = ["open_file", "read_bytes", "read_text", "sha256_of"]

# O_NONBLOCK: a pipe without a writer would block. O_NOCTTY: a terminal would become the process's own. O_BINARY: Windows converts newlines.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


def open_file(path: str | os.PathLike[str], *, what: str = "file", most: int | None = None, error: type[OfaError] = FileError) -> BinaryIO:
    """Open a plain file for reading.

    Args:
        path: of the file.
        what: noun for the file in messages.
        most: largest size in bytes; larger files are refused.
        error: class of all errors.

    Raises:
        OfaError: of the class ``error``: the file does not exist, cannot be read, is too large, or is a folder, pipe, socket or device.
    """
    try:
        _check_kind(os.stat(path), path, what, error)  # before opening, which already triggers some devices
        handle = os.open(path, _FLAGS)
        try:
            found = os.fstat(handle)
            _check_kind(found, path, what, error)
            if most is not None and found.st_size > most:
                raise _too_large(path, what, most, found.st_size, error)
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise
    except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
        raise _unreadable(path, what, reason_of(problem), error) from problem


def read_bytes(path: str | os.PathLike[str], *, most: int, what: str = "file", error: type[OfaError] = FileError) -> bytes:
    """Read the content of a plain file.

    Args:
        path: of the file.
        most: largest size in bytes; larger files are refused, also if they grow while they are read.
        what: noun for the file in messages.
        error: class of all errors.

    Raises:
        OfaError: of the class ``error``: as in ``open_file``.
    """
    with open_file(path, what=what, most=most, error=error) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) or b""
            if len(content) > size:  # the file grows, or the system does not report its size
                content += file.read(most + 1 - len(content)) or b""
        except (OSError, MemoryError) as problem:
            raise _unreadable(path, what, reason_of(problem), error) from problem
    if len(content) > most:
        raise _too_large(path, what, most, len(content), error)
    return content


def read_text(path: str | os.PathLike[str], *, most: int, what: str = "file", error: type[OfaError] = FileError) -> str:
    """Read a plain file as UTF-8 text; arguments as in ``read_bytes``.

    Raises:
        OfaError: of the class ``error``: as in ``open_file``, or the file is not UTF-8.
        DamagedError: the file has a seal (``ofa.seal``) that does not match.
    """
    content = read_bytes(path, most=most, what=what, error=error)
    check_seal(content, required=False, what=f"'{os.fspath(path)}'")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"a {what} must be text in UTF-8, but '{path}' is not: {problem}; write it again") from problem


def sha256_of(path: str | os.PathLike[str], *, most: int) -> str:
    """The SHA-256 of a plain file's content, in hexadecimal.

    Args:
        path: of the file.
        most: largest size in bytes; larger files are refused.

    Raises:
        FileError: as in ``open_file``.
    """
    with open_file(path, most=most) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()


def _check_kind(found: os.stat_result, path: str | os.PathLike[str], what: str, error: type[OfaError]) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no plain file"
        raise _unreadable(path, what, f"it is {kind}", error)


def _too_large(path: str | os.PathLike[str], what: str, most: int, found: int, error: type[OfaError]) -> OfaError:
    return error(f"a {what} must have at most {most} bytes, but '{os.fspath(path)}' has {found}; give another file")


def _unreadable(path: str | os.PathLike[str], what: str, reason: str, error: type[OfaError]) -> OfaError:
    return error(f"'{os.fspath(path)}' must be a readable {what}, but {reason}; check the path")
