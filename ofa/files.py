"""Writing files so that a reader never meets half of one, and reading them so that a failure is a sentence."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ofa.errors import FileError, OfaError

__all__ = [
    "REMEDY",
    "check_folder",
    "check_output",
    "check_output_folder",
    "read_json",
    "reason_of",
    "replacing",
    "unwritable",
    "write_json",
]

_LONGEST_PREFIX = 32
"""Characters of a file's name in that of its temporary file: a name of the greatest length allowed must leave room for the rest."""

_CODE = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
"""How libraries that are not written in Python quote the code of the system's error."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it takes the place of ``path``.

    If the block raises, the temporary file is removed and ``path`` stays as it was.

    Raises:
        FileError: the folder does not exist or cannot be written, the disk is full, or ``path`` is there and no file.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            kind = "a folder" if target.is_dir() else "no plain file"
            raise FileError(f"'{target}' must be a file to be written, but it is {kind}; name a file")
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:_LONGEST_PREFIX]}.", suffix=".part", dir=target.parent)
        os.close(handle)
    except (OSError, ValueError) as error:  # a ValueError is of a name that no file can have
        raise unwritable(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    except OfaError:
        raise
    except Exception as error:
        if _code(error) is None:
            raise
        raise unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(target: str | os.PathLike[str], error: Exception) -> FileError:
    """The error of a file or folder that could not be written, for any error that a library met in writing it."""
    return FileError(f"'{os.fspath(target)}' must be writable, but {reason_of(error)}; choose another place or make room there")


def reason_of(error: Exception) -> str:
    """A few words on why a file could not be read or written: the system's, if the error has its code, or else the error's first line."""
    code = _code(error)
    words = os.strerror(code) if code is not None else (str(error).strip() or type(error).__name__).splitlines()[0]
    return words[:1].lower() + words[1:]


def _code(error: Exception) -> int | None:
    """The code of the system's error that is behind ``error``; None if there is none."""
    if isinstance(error, FileError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _CODE.search(str(error))
    return int(found[1]) if found else None


def _umask() -> int:
    """The permissions that a plain ``open`` would have withheld (``mkstemp`` gives none to others)."""
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Write ``value`` as indented JSON, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        FileError: the file is absent, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"'{path}' must be a readable file, but {reason_of(error)}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"'{path}' must be JSON, but {error}; write it again with the command that made it") from error


# -- before the work whose result a file is to hold -------------------------------------------------------------------

REMEDY = "name another file or add --overwrite"
"""What can be done about a file that is there."""


def check_output(output: Path, *, overwrite: bool, remedy: str = REMEDY) -> None:
    """See that a file can be written, before the work whose result it is to hold.

    Args:
        output: the file.
        overwrite: whether one that is there may be replaced.
        remedy: what the user can do about one that is there.

    Raises:
        FileError: it is there and may not be replaced, is no file, or its folder is not there or cannot be written.
    """
    check_folder(output)
    if not _exists(output):
        return
    if not output.is_file():
        kind = "a folder" if output.is_dir() else "no plain file"
        raise FileError(f"'{output}' must be a file to be written, but it is {kind}; name a file")
    if not overwrite:
        raise FileError(f"what is there is not replaced unasked, but '{output}' exists; {remedy}")


def check_output_folder(output: Path, *, overwrite: bool, remedy: str = "name another folder or add --overwrite") -> None:
    """See that a folder can be written, before the work whose result it is to hold; an empty one may be there.

    Args:
        output: the folder.
        overwrite: whether what is in it may be replaced.
        remedy: what the user can do about what is there.

    Raises:
        FileError: there is something in it that may not be replaced, it is no folder, or the one it stands in is not there or cannot
            be written.
    """
    check_folder(output)
    if not _exists(output):
        return
    if not output.is_dir():
        raise FileError(f"'{output}' must be a folder to be written, but it is a file; name another")
    if not overwrite and any(output.iterdir()):
        raise FileError(f"what is there is not replaced unasked, but '{output}' exists and is not empty; {remedy}")


def check_folder(output: Path) -> None:
    """Minutes of work must not end at a folder that is not there.

    Raises:
        FileError: the folder of ``output`` does not exist, or nothing can be written there.
    """
    folder = output.absolute().parent
    try:
        there = folder.is_dir()
        if there:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FileError(f"'{output}' must be in a folder that can be written, but {reason_of(error)}; choose another") from error
    if not there:
        raise FileError(f"'{output}' must be in a folder that exists, but '{output.parent}' does not; create it")


def _exists(output: Path) -> bool:
    try:
        return os.path.lexists(output) or output.exists()
    except (OSError, ValueError) as error:
        raise FileError(f"'{output}' must be a name that can be written, but {reason_of(error)}; choose another") from error
