"""What a build has measured, on disk as soon as it is known: a build that is killed loses only the group it was measuring."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import FileLock, Timeout

from ofa.errors import TableError

__all__ = ["Journal"]


class Journal:
    """JSON lines beside a table that is being built: where it is measured, then a row each. Used in a ``with`` block.

    Only one process can have it; it is removed by ``finish`` and stays after anything else.

    Args:
        table: the path of the table to be.
        resume: whether to go on with what is there. Otherwise there must be nothing.

    Raises:
        TableError: on entering: another process builds this table, or rows are there and it is not to be resumed.
    """

    def __init__(self, table: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = Path(f"{os.fspath(table)}.journal")
        self.origin: dict[str, Any] | None = None
        self.rows: list[dict[str, Any]] = []
        self._resume = resume
        self._lock = FileLock(f"{self.path}.lock")
        self._file: IO[str] | None = None

    def __enter__(self) -> Journal:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise TableError(
                f"a table must be built by one process at a time, but another one writes '{self.path}'; wait for it, or name another file"
            ) from error
        except OSError as error:
            raise TableError(
                f"a folder must be writable to build a table there, but '{self.path.parent}' is not: "
                f"{(error.strerror or str(error)).lower()}; name another"
            ) from error
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            with suppress(OSError):  # half a line that the disk had no room for, which was told when it was written
                self._file.close()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def begin(self, origin: Mapping[str, Any]) -> None:
        """Write where measurements are made, unless it is there already."""
        if self.origin is None:
            self.origin = dict(origin)
            self._write({"origin": self.origin})

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, whatever happens next."""
        self.rows.append(dict(row))
        self._write({"row": self.rows[-1]})

    def finish(self) -> None:
        """Remove it: the table is written."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        whole = 0
        for line in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else ():
            entry = _entry(line)
            if entry is None:  # the writer was killed in the middle of it
                break
            whole += len(line)
            self.origin = entry.get("origin", self.origin)
            self.rows += [_with_both_sides(entry["row"])] if "row" in entry else []
        if self.rows and not self._resume:
            raise TableError(
                f"a build that was cut off must be continued or given up, but '{self.path}' holds {len(self.rows)} blocks of one; "
                "add --resume to continue it, or delete that file"
            )
        if whole:
            os.truncate(self.path, whole)

    def _write(self, entry: Mapping[str, Any]) -> None:
        try:
            if self._file is None:
                self._file = self.path.open("a", encoding="utf-8")
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise TableError(
                f"what is measured must be kept at once, but '{self.path}' cannot be written: {(error.strerror or str(error)).lower()}; "
                "free the disk and add --resume"
            ) from error


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a line that was written whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _with_both_sides(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of this version, or of an earlier one, which knew squares only."""
    sides = {f"input_{side}_px": row["input_size_px"] for side in ("height", "width")} if "input_size_px" in row else {}
    return {**row, **sides}
