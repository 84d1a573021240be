"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ofa.errors import FileError

__all__ = ["read_json", "replacing", "write_json"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it takes the place of ``path``.

    If the block raises, the temporary file is removed and ``path`` stays as it was.

    Raises:
        FileError: the folder does not exist or cannot be written, or the disk is full.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise _unwritable(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(target, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _unwritable(target: Path, error: OSError) -> FileError:
    return FileError(f"'{target}' must be writable, but {(error.strerror or str(error)).lower()}; choose another folder or free it")


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
        raise FileError(f"'{path}' must be a readable file, but {(error.strerror or str(error)).lower()}; check the path") from error
    except ValueError as error:
        raise FileError(f"'{path}' must be JSON, but {error}; write it again with the command that made it") from error
