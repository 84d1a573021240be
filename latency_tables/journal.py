"""The journal of a table's build: measurements are on disk at once, so that a killed build loses only its present group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from latency_tables.table import COLUMNS, SOMETIMES_EMPTY
from ofa.errors import FileError, TableError
from ofa.lines import Lines
from ofa.locking import writing

__all__ = ["Journal"]


class Journal:
    """A file of JSON lines beside a table that is being built: its origin, then one line per row. Used in a ``with`` block.

    Inside of the block this process is the only writer of the table (``ofa.locking``). ``finish`` removes the file; otherwise it stays.

    Args:
        table: path of the future table.
        resume: whether to continue an existing journal.
        overwrite: whether to discard an existing journal. With neither, no journal may exist.

    Attributes:
        damaged: number of damaged lines; their blocks are measured again.

    Raises:
        FileError: on entering: another process writes this table, or the folder cannot be written.
        TableError: on entering: a journal exists and is neither resumed nor overwritten, or its origin is damaged.
    """

    def __init__(self, table: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False) -> None:
        self.path = Path(f"{os.fspath(table)}.journal")
        self.origin: dict[str, Any] | None = None
        self.rows: list[dict[str, Any]] = []
        self.damaged = 0
        self._table = table
        self._resume, self._overwrite = resume, overwrite
        self._lines = Lines(self.path)
        self._lock = ExitStack()

    def __enter__(self) -> Journal:
        with ExitStack() as stack:
            stack.enter_context(writing(self._table, "building a table"))
            self._read()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.close()

    def begin(self, origin: Mapping[str, Any]) -> None:
        """Write the origin of the measurements, unless the journal has it already."""
        if self.origin is None:
            self.origin = dict(origin)
            # Twice: another damaged line costs one row, but without this line no row could be trusted.
            for _ in range(2):
                self._write({"origin": self.origin})

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row to the disk."""
        self.rows.append(dict(row))
        self._write({"row": self.rows[-1]})

    def finish(self) -> None:
        """Remove the journal, after the table is written."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        if self._overwrite and not self._resume:
            self.finish()
        found = self._lines.read()
        self.damaged = found.damaged
        for entry in found.entries:
            origin, row = entry.get("origin"), _with_both_sides(entry.get("row"))
            if isinstance(origin, dict):
                self.origin = origin
            elif row is not None:
                self.rows.append(row)
            else:
                self.damaged += 1
        if self.rows and not self._resume:
            raise TableError(
                f"an interrupted build must be continued or discarded, but '{self.path}' holds {len(self.rows)} blocks of one; "
                "add --resume to continue it, or --overwrite to begin anew"
            )
        if self.rows and self.origin is None:
            raise TableError(f"measured blocks need their origin, but its lines in '{self.path}' are damaged; begin anew with --overwrite")

    def _write(self, entry: Mapping[str, Any]) -> None:
        try:
            self._lines.append(entry)
        except FileError as error:
            raise TableError(f"measurements must be written at once, but {error}, and add --resume") from error


def _with_both_sides(row: Any) -> dict[str, Any] | None:
    """A row of this version, or of an earlier one, which had square inputs only; None for values that are no row."""
    if not isinstance(row, dict):
        return None
    sides = {f"input_{side}_px": row["input_size_px"] for side in ("height", "width")} if "input_size_px" in row else {}
    known = {**row, **sides}
    return known if known.keys() >= set(COLUMNS) - set(SOMETIMES_EMPTY) else None
