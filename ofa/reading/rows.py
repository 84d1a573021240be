"""Reading of CSV files with a header, row by row."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ofa.errors import FileError
from ofa.reading.files import open_file
from ofa.reading.limits import LARGEST_CSV, LONGEST_LINE, UnfitError

__all__ = ["open_csv"]

_MARK = "\ufeff"
"""Byte order mark, which spreadsheets write before UTF-8 text."""


@contextmanager
def open_csv(path: str | os.PathLike[str]) -> Iterator[csv.DictReader[str]]:
    """Open a CSV file; yields its rows by column name. Errors of reading inside the block are converted too.

    Each row must be one line of at most ``LONGEST_LINE`` bytes.

    Raises:
        FileError: the file does not exist, cannot be read, or is no such CSV file.
    """
    with open_file(path, what="CSV file") as file:
        try:
            yield csv.DictReader(_lines(file), strict=True)
        except (csv.Error, UnicodeDecodeError, UnfitError) as error:
            raise FileError(
                f"'{os.fspath(path)}' must be a CSV file with a header and a network in each row, but: {error}; correct it"
            ) from error


def _lines(file: BinaryIO) -> Iterator[str]:
    if os.fstat(file.fileno()).st_size > LARGEST_CSV:
        raise UnfitError(f"more than {LARGEST_CSV} bytes")
    mark, read = _MARK, 0
    while line := file.readline(LONGEST_LINE + 1):
        read += len(line)
        if len(line) > LONGEST_LINE or read > LARGEST_CSV:
            raise UnfitError(f"a line of more than {LONGEST_LINE} bytes, or a file that grows")
        if line.count(b'"') % 2:
            raise UnfitError("a value that continues on the next line")
        yield line.decode("utf-8").removeprefix(mark)
        mark = ""
