"""Optuna's journal files, each of whose lines proves that it is whole; Optuna itself reads and continues them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from filelock import lock_descriptor
from optuna.storages.journal import BaseJournalBackend

from ofa.errors import SearchError
from ofa.lines import append_whole, as_line, entry_of
from ofa.reading import open_file
from ofa.reading.limits import LARGEST_JSON

__all__ = ["JournalFile"]

_TURN_S = 60.0
"""In which others, who write some lines at a time, leave the file to one more."""
_POLL_S = 0.005


class JournalFile(BaseJournalBackend):
    """A journal file that several processes write, one after the other.

    Optuna's own locks are files, which a killed process leaves behind: the others would wait for half a minute.

    Args:
        path: the file, which is made if it is not there.

    Raises:
        OSError: it cannot be.
        FileError: it is no plain file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._starts = [0]  # of the lines that were read, and of the next one
        if not os.path.lexists(path):
            open(path, "ab").close()
        open_file(path).close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Read the entries from a number on.

        Raises:
            SearchError: a line is damaged. Later ones build on it: Optuna numbers trials by the lines before.
        """
        with open_file(self._path) as file:
            number = min(log_number_from, len(self._starts) - 1)
            file.seek(self._starts[number])
            # Half a line, at which this ends, is being written, or its writer was killed.
            while (line := file.readline(LARGEST_JSON)).endswith(b"\n") or len(line) == LARGEST_JSON:
                number += 1
                entry = entry_of(line[:-1])
                if entry is None or not {"op_code", "worker_id"} <= entry.keys():
                    raise SearchError(
                        f"a study must be as it was written, but line {number} of '{self._path}' is damaged; go back to a copy of it, or "
                        "search in another --storage"
                    )
                if number == len(self._starts):
                    self._starts.append(self._starts[-1] + len(line))
                if number > log_number_from:
                    yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries to the disk, all or none.

        Raises:
            SearchError: another process has been writing for a minute.
        """
        with open(self._path, "ab+", buffering=0) as file:
            end = time.monotonic() + _TURN_S
            # The file itself, and none beside it as for ``ofa.locking``: a file that comes and goes costs more than the lines.
            while not lock_descriptor(file.fileno(), blocking=False):
                if time.monotonic() > end:
                    raise SearchError(f"a study must be written by turns, but another process keeps '{self._path}'; end it if it hangs")
                time.sleep(_POLL_S)
            append_whole(file, b"".join(map(as_line, logs)))
