"""Content-addressed store of the files that are sent to a device: each is named by the hash of its content, and verified before use."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from ofa.errors import DeviceError
from ofa.reasons import reason_of

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

__all__ = ["Store", "stored_name"]

_NAME = re.compile(r"([0-9a-f]{64})(\.[A-Za-z0-9_-]{1,16})?")
_PART = ".part"
_UNFINISHED = re.compile(rf"{_NAME.pattern}(\.\d+)?{re.escape(_PART)}")
_LARGEST = 16 << 30


def stored_name(content: bytes, suffix: str) -> str:
    """The name of a file in the store; it keeps the suffix, by which some runtimes recognize the format."""
    return f"{hashlib.sha256(content).hexdigest()}{suffix}"


class Store:
    """The files in an agent's folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[str, tuple[int, int, int]] = {}
        self._part: IO[bytes] | None = None

    def missing(self, names: Iterable[str], say: Callable[[Mapping[str, Any]], None]) -> list[str]:
        """The names of missing or damaged files. Damaged files, and incomplete files of dead agents, are removed.

        Args:
            names: names as of ``stored_name``.
            say: receives a note before each file is verified.

        Raises:
            DeviceError: an invalid name.
        """
        for part in self._folder.glob(f"*{_PART}"):
            if _UNFINISHED.fullmatch(part.name) and (self._part is None or self._part.name != str(part)):
                _remove_if_dead(part)
        wanted = [self._path(name) for name in names]
        missing = []
        for number, path in enumerate(wanted):
            if self._identity(path) is None or self._identity(path) != self._whole.get(path.name):
                say({"doing": f"checking {path.name[:12]}", "step": number, "steps": len(wanted)})
                if not self._is_whole(path):
                    missing.append(path.name)
        return missing

    def put(self, name: str, start: int, content: str, *, last: bool) -> None:
        """Write a part of a file, in base64; the file gets its name when it is complete.

        Raises:
            DeviceError: an invalid name or part, or the disk is full.
        """
        target = self._path(name)
        try:
            chunk = base64.b64decode(content, validate=True)
            part = self._begin(target) if start == 0 else self._part
            if part is None or part.tell() != start or start + len(chunk) > _LARGEST:
                raise DeviceError(f"parts of a file must arrive in order, but one of '{name}' begins at byte {start}; send it again")
            part.write(chunk)
            if last:
                self._finish(part, target)
        except DeviceError:
            self.drop()
            raise
        except OSError as error:
            self.drop()
            raise DeviceError(
                f"the device must be able to keep networks in '{self._folder}', but: {reason_of(error)}; free it or name another"
            ) from error
        except binascii.Error as error:
            self.drop()
            raise DeviceError(f"a part of a file must be base64, but that of '{name}' is not; send it again") from error

    def drop(self) -> None:
        """Remove the incomplete file."""
        if self._part is not None:
            part, self._part = self._part, None
            with contextlib.suppress(OSError):
                os.unlink(part.name)
            with contextlib.suppress(OSError):  # flushing fails again on a full disk
                part.close()

    def _begin(self, target: Path) -> IO[bytes]:
        self.drop()
        self._part = (self._folder / f"{target.name}.{os.getpid()}{_PART}").open("wb")
        if fcntl is not None:
            fcntl.flock(self._part, fcntl.LOCK_EX)
        return self._part

    def _finish(self, part: IO[bytes], target: Path) -> None:
        part.flush()
        os.fsync(part.fileno())
        if _digest(Path(part.name)) != target.name[:64]:
            raise DeviceError(f"a file must arrive as it was sent, but '{target.name}' did not; send it again")
        Path(part.name).replace(target)
        self._part = None
        part.close()
        identity = self._identity(target)
        if identity is not None:
            self._whole[target.name] = identity

    def _path(self, name: object) -> Path:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeviceError(f"a file must be named by its content's hash, but is {str(name)[:100]!r}; name it so")
        return self._folder / name

    def _is_whole(self, path: Path) -> bool:
        """Whether a file's content has the hash in its name; a file with other content is removed."""
        try:
            if not path.is_symlink() and path.is_file():
                identity = self._identity(path)
                if identity is not None and _digest(path) == path.name[:64]:
                    self._whole[path.name] = identity
                    return True
            path.unlink(missing_ok=True)
        except OSError:  # unreadable: it will be replaced
            pass
        return False

    def _identity(self, path: Path) -> tuple[int, int, int] | None:
        try:
            there = path.lstat()
        except OSError:
            return None
        return there.st_ino, there.st_size, there.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _remove_if_dead(part: Path) -> None:
    """Remove a part whose writer has died: living writers hold a lock on it."""
    with contextlib.suppress(OSError), part.open("rb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
