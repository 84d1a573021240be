"""Optuna journal files with a checksum in each line; Optuna itself reads and continues them."""

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
"""Timeout of the file lock in seconds; a holder writes a few lines at a time."""
_POLL_S = 0.005


class JournalFile(BaseJournalBackend):
    """A journal file that several processes write in turn.

    Optuna's own locks are files. A killed process leaves its lock file behind, and the others wait for it for half a minute.

    Args:
        path: path of the file, created if absent.

    Raises:
        OSError: the file cannot be created.
        FileError: the path is no regular file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._starts = [0]  # byte offsets of the lines that were read, and of the next line
        if not os.path.lexists(path):
            open(path, "ab").close()
        open_file(path).close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Read the entries from a line number on.

        Raises:
            SearchError: a line is damaged. It cannot be skipped: Optuna numbers trials by the lines before them.
        """
        with open_file(self._path) as file:
            number = min(log_number_from, len(self._starts) - 1)
            file.seek(self._starts[number])
            # An incomplete last line is still being written, or its writer was killed: reading stops before it.
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
        """Append entries to the file atomically.

        Raises:
            SearchError: another process has held the file's lock for a minute.
        """
        with open(self._path, "ab+", buffering=0) as file:
            end = time.monotonic() + _TURN_S
            # Lock the file itself, without a lock file as in ``ofa.locking``: creating and deleting one costs more than the append.
            while not lock_descriptor(file.fileno(), blocking=False):
                if time.monotonic() > end:
                    raise SearchError(
                        f"a study is written by one process at a time, but another one has locked '{self._path}' for {_TURN_S:g} s; end it "
                        "if it hangs"
                    )
                time.sleep(_POLL_S)
            append_whole(file, b"".join(map(as_line, logs)))
