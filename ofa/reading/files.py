"""Files opened only where they are plain files, and read no further than a limit."""

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

# A pipe that nobody writes to would be waited for; a terminal would become that of the process; Windows would change line ends.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


def open_file(path: str | os.PathLike[str], *, what: str = "file", most: int | None = None, error: type[OfaError] = FileError) -> BinaryIO:
    """Open a plain file for reading.

    Args:
        path: the file.
        what: the noun that errors call it by.
        most: bytes; a file that has more is refused.
        error: the class of all errors.

    Raises:
        OfaError: of the class ``error``: it is absent, cannot be read, or is a folder, a pipe, a socket or a device.
    """
    try:
        _check_kind(os.stat(path), path, what, error)  # before it is opened, which is enough to make some devices act
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
    except (OSError, ValueError) as problem:  # a ValueError is of a name that no file can have
        raise _unreadable(path, what, reason_of(problem), error) from problem


def read_bytes(path: str | os.PathLike[str], *, most: int, what: str = "file", error: type[OfaError] = FileError) -> bytes:
    """The content of a plain file.

    Args:
        path: the file.
        most: bytes; a file that has more is refused, by its size or, where it grows, when they have been read.
        what: the noun that errors call it by.
        error: the class of all errors.

    Raises:
        OfaError: of the class ``error``: as ``open_file``, or it is larger.
    """
    with open_file(path, what=what, most=most, error=error) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) or b""
            if len(content) > size:  # it grows, or does not say how large it is
                content += file.read(most + 1 - len(content)) or b""
        except (OSError, MemoryError) as problem:
            raise _unreadable(path, what, reason_of(problem), error) from problem
    if len(content) > most:
        raise _too_large(path, what, most, len(content), error)
    return content


def read_text(path: str | os.PathLike[str], *, most: int, what: str = "file", error: type[OfaError] = FileError) -> str:
    """The content of a plain file as text in UTF-8; arguments and errors as of ``read_bytes``, and where it is no such text.

    Raises:
        DamagedError: it has a seal (``ofa.seal``), which does not fit.
    """
    content = read_bytes(path, most=most, what=what, error=error)
    check_seal(content, required=False, what=f"'{os.fspath(path)}'")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"a {what} must be text in UTF-8, but '{path}' is not: {problem}; write it again") from problem


def sha256_of(path: str | os.PathLike[str], *, most: int) -> str:
    """The SHA-256 of a plain file's content in hexadecimal digits; arguments and errors as of ``open_file``."""
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
