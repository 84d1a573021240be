"""CSV files with a header, read row by row."""

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
"""What spreadsheets write ahead of text in UTF-8."""


@contextmanager
def open_csv(path: str | os.PathLike[str]) -> Iterator[csv.DictReader[str]]:
    """The rows of a CSV file by the names of its header; what reading them meets within the block is an error of this function.

    A row must stand on one line, of at most ``LONGEST_LINE`` bytes.

    Raises:
        FileError: the file is absent, cannot be read, or is no such file.
    """
    with open_file(path, what="CSV file") as file:
        try:
            yield csv.DictReader(_lines(file), strict=True)
        except (csv.Error, UnicodeDecodeError, UnfitError) as error:
            raise FileError(
                f"'{os.fspath(path)}' must be a CSV file with a header and a network in each row, but reading it met: {error}; correct it"
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
            raise UnfitError("a value that goes on over the end of its line")
        yield line.decode("utf-8").removeprefix(mark)
        mark = ""
