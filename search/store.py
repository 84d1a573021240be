"""Parquet files with their metadata inside: written whole or not at all, and read only if they are what they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from latency_tables.parquet import NotParquetError, json_of, read_parquet, write_parquet
from latency_tables.table import METADATA_KEY
from ofa.errors import FileError
from ofa.files import reason_of
from ofa.version import __version__

__all__ = ["read_table", "write_table"]

_KEY = b"ofa"


def write_table(frame: pd.DataFrame, metadata: Mapping[str, Any], path: str | os.PathLike[str], *, kind: str, schema: int) -> None:
    """Write ``frame`` and ``metadata`` (JSON values) as one Parquet file.

    Args:
        frame: the rows.
        metadata: what is known of them; ``kind``, ``schema``, ``ofa`` (the version) and ``date`` are added.
        path: the file, replaced when all is written.
        kind: what the file is, such as ``front``.
        schema: version of the layout; raise it whenever an older reader would misunderstand the file.
    """
    stamp = {"kind": kind, "schema": schema, "ofa": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps({**metadata, **stamp}).encode()})
    write_parquet(table, path, compression="zstd")


def read_table(
    path: str | os.PathLike[str], *, kind: str, schema: int, columns: Iterable[str], made_by: str, oldest: int = 1
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read what ``write_table`` wrote.

    Args:
        path: the file.
        kind: what it must be.
        schema: the newest layout that the caller understands.
        columns: the columns that it must have.
        made_by: the command that makes such files, for messages.
        oldest: the oldest layout that the caller understands.

    Raises:
        FileError: the file is absent, damaged, of another kind, or of a schema that the caller does not understand.
    """
    try:
        table = read_parquet(path)
    except NotParquetError as error:
        raise _damaged(path, kind, made_by) from error
    except FileError as error:
        raise FileError(f"'{path}' must be a readable {kind}, but {reason_of(error)}; check the path") from error
    metadata = json_of(table, _KEY) or {}
    if metadata.get("kind") != kind:
        raise FileError(f"'{path}' must be a {kind}, but is {_found(table, metadata)}; make a {kind} with: {made_by}")
    if not isinstance(metadata.get("schema"), int) or "ofa" not in metadata:
        raise _damaged(path, kind, made_by)
    if metadata["schema"] > schema:
        raise FileError(
            f"'{path}' must have schema {schema} or older, but has {metadata['schema']} (written by ofa {metadata['ofa']}); "
            "install that version of ofa-nas"
        )
    if metadata["schema"] < oldest:
        raise FileError(
            f"'{path}' must have schema {oldest} or newer, but has {metadata['schema']} (written by ofa {metadata['ofa']}); "
            f"make it again with: {made_by}"
        )
    frame = table.to_pandas()
    if missing := sorted(set(columns) - set(frame.columns)):
        raise FileError(f"the {kind} '{path}' must have the column {missing[0]}, but it is missing; make it again with: {made_by}")
    return frame, metadata


def _found(table: pa.Table, metadata: Mapping[str, Any]) -> str:
    if "kind" in metadata:
        return f"a {metadata['kind']}"
    return "a latency table" if METADATA_KEY in (table.schema.metadata or {}) else "another Parquet file"


def _damaged(path: str | os.PathLike[str], kind: str, made_by: str) -> FileError:
    return FileError(f"'{path}' must be a whole {kind} in Parquet, but it is damaged or something else; make it again with: {made_by}")
