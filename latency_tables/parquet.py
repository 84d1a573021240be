"""Parquet files with JSON metadata inside, by any name that the system knows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ofa.errors import FileError
from ofa.files import reason_of, replacing

__all__ = ["NotParquetError", "json_of", "read_keys", "read_parquet", "write_parquet"]


class NotParquetError(FileError):
    """A file that is there and can be read, but is damaged or something else than Parquet."""


def write_parquet(table: pa.Table, path: str | os.PathLike[str], **settings: Any) -> None:
    """Write a table, all or nothing.

    Args:
        table: with its metadata.
        path: the file.
        settings: of ``pyarrow.parquet.write_table``.

    Raises:
        FileError: the file cannot be written.
    """
    # Through Python's own files, which know every name that the system does, and no other kind of address.
    with replacing(path) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, **settings)


def read_parquet(path: str | os.PathLike[str]) -> pa.Table:
    """Read a table.

    Raises:
        FileError: there is no such file, or it cannot be read.
        NotParquetError: it is damaged or something else.
    """
    return _read(path, pq.read_table)


def read_keys(path: str | os.PathLike[str]) -> Mapping[bytes, bytes]:
    """The metadata of a table by key, without its rows; errors as ``read_parquet``."""
    return _read(path, pq.read_schema).metadata or {}


def json_of(table: pa.Table, key: bytes) -> dict[str, Any] | None:
    """The object that a table carries as JSON under a key of its metadata; None where there is none, or what is there is no object."""
    try:
        value = json.loads((table.schema.metadata or {}).get(key, b"null"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read(path: str | os.PathLike[str], read: Any) -> Any:
    try:
        with Path(path).open("rb") as file:
            return read(file)
    except OSError as error:
        if error.errno is None:  # pyarrow's own, of a damaged file
            raise _damaged(path, error) from error
        raise FileError(f"'{path}' must be a file that can be read, but {reason_of(error)}; check the path") from error
    except (ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: str | os.PathLike[str], error: Exception) -> NotParquetError:
    return NotParquetError(f"'{path}' must be a whole Parquet file, but it is damaged or something else: {reason_of(error)}; name another")
