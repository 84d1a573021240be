"""Parquet files with typed metadata: written atomically, and checked (checksum, kind, schema, columns) when read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ofa.errors import DamagedError, FileError, OfaError, SchemaError
from ofa.files import replacing
from ofa.locking import writing
from ofa.outputs import PARQUET, check_ending
from ofa.reading import parse_json
from ofa.reading.parquet import ParquetContent, open_parquet
from ofa.schema import parse, to_json
from ofa.seal import BLANK_SEAL, SEAL_KEY
from ofa.version import __version__

__all__ = ["Kind", "kind_of", "now"]

Info = TypeVar("Info")
_KEY = "ofa"
"""Key of a file's metadata, a JSON object: the fields of a dataclass, and ``kind``, ``schema`` and ``ofa`` (the version that wrote it)."""
_KEYS_BEFORE = {"ofa_latency_table": ("latency table", "schema_version", "ofa_version")}
"""Key of the metadata in earlier versions: the kind of file, and the names of the schema and version fields."""

_TURN_S = 10.0
"""Wait for another writer of the same file, long enough for one write; a writer that holds the lock for longer is reported."""
_HOLDS: Mapping[type, Callable[[pa.DataType], bool]] = {
    str: lambda held: pa.types.is_string(held) or pa.types.is_large_string(held),
    int: pa.types.is_integer,
    float: lambda held: pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_boolean(held) or pa.types.is_null(held),
    bool: pa.types.is_boolean,
}
"""For each type of values, the check of a column's Arrow type."""


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[Info]):
    """A kind of files: their content, and their name in messages.

    Attributes:
        name: such as ``front``; stored in the file.
        info: dataclass of the metadata; its fields are checked when a file is read (``ofa.schema``).
        schema: version of the layout; increase it whenever an older reader would misunderstand a file.
        oldest: the oldest schema that can still be read.
        sealed: the oldest schema whose files carry a checksum (``ofa.seal``).
        columns: required columns and their types (str, int, float or bool); all other columns must be numeric.
        gaps: non-numeric columns that may have nulls.
        optional: optional non-numeric columns and their types.
        made_by: the command that creates such files, for messages.
        renew: converts rows of earlier schemas to the current one.
        error: class of all errors of reading.
    """

    name: str
    info: type[Info]
    schema: int
    oldest: int = 1
    sealed: int
    columns: Mapping[str, type]
    gaps: tuple[str, ...] = ()
    optional: Mapping[str, type] = field(default_factory=dict)
    made_by: str
    renew: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    error: type[OfaError] = FileError

    def write(self, frame: pd.DataFrame, info: Info, path: str | os.PathLike[str]) -> None:
        """Write rows and their metadata; an existing file is replaced atomically.

        Args:
            frame: the rows.
            info: the metadata, an instance of ``self.info``.
            path: of the file.

        Raises:
            FileError: the path cannot be written, has the ending of another kind of file, or is locked by another writer.
        """
        check_ending(Path(path), PARQUET)
        metadata = {SEAL_KEY: BLANK_SEAL, **to_json(info), "kind": self.name, "schema": self.schema, "ofa": __version__}
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata({_KEY: json.dumps(metadata)})
        # Opened by Python, because pyarrow does not accept every file name and takes some for addresses of remote storage.
        with writing(path, f"writing a {self.name}", wait_s=_TURN_S), replacing(path) as temporary, temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")

    def read(self, path: str | os.PathLike[str]) -> tuple[pd.DataFrame, Info]:
        """Read a file that ``write`` wrote.

        Returns:
            The rows, and the metadata as an instance of ``info``.

        Raises:
            OfaError: of the class ``error``: the file is missing, damaged, of another kind or of an unsupported schema, or a column or
                field of the metadata is missing or has the wrong type.
        """
        try:
            with open_parquet(path, what=self.name, ours=True) as content:
                stored = self._stamp(path, content)
                table = content.read().replace_schema_metadata(None)
                self._check_kinds(path, table)
                frame = table.to_pandas() if self.renew is None else self.renew(table.to_pandas())
        except DamagedError as error:
            raise self._damaged(path) from error
        except FileError as error:
            raise self.error(str(error)) from error
        if missing := sorted(set(self.columns) - set(frame.columns)):
            raise self.error(
                f"the {self.name} '{path}' must have the column {missing[0]}, but it is missing; make it again with: {self.made_by}"
            )
        try:
            return frame, parse(self.info, stored)
        except SchemaError as error:
            raise self.incomplete(path, str(error)) from error

    def incomplete(self, path: str | os.PathLike[str], reason: str) -> OfaError:
        """The error to raise for a file of this kind that is incomplete.

        Args:
            path: of the file.
            reason: what is wrong, as a clause.
        """
        return self.error(f"'{path}' must be a whole {self.name}, but {reason}; make it again with: {self.made_by}")

    def _stamp(self, path: str | os.PathLike[str], content: ParquetContent) -> Mapping[str, Any]:
        """The metadata of a file, if it is of this kind and of a supported schema."""
        stored = _metadata_of(content.metadata)
        if stored.get("kind") != self.name:
            found = f"a {stored['kind']}" if "kind" in stored else "another Parquet file"
            raise self.error(f"'{path}' must be a {self.name}, but is {found}; make a {self.name} with: {self.made_by}")
        self._check_schema(path, stored, sealed=content.sealed)
        return stored

    def _check_schema(self, path: str | os.PathLike[str], stored: Mapping[str, Any], *, sealed: bool) -> None:
        schema, version = stored.get("schema"), stored.get("ofa")
        if not isinstance(schema, int) or version is None:
            raise self._damaged(path)
        if not self.oldest <= schema <= self.schema:
            rule, remedy = f"{self.schema} or older", "upgrade with: pip install -U ofa-nas"
            if schema < self.oldest:
                rule, remedy = f"{self.oldest} or newer", f"make it again with: {self.made_by}"
            raise self.error(f"'{path}' must have schema {rule}, but has {schema} (written by ofa {version}); {remedy}")
        if schema >= self.sealed and not sealed:
            raise self._damaged(path)

    def _check_kinds(self, path: str | os.PathLike[str], table: pa.Table) -> None:
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind = self.columns.get(name, self.optional.get(name, float))
            if not _HOLDS[kind](column.type):
                raise self.incomplete(path, f"its column {name} holds {column.type}")
            if column.null_count and kind is not float and name not in self.gaps:
                raise self.incomplete(path, f"its column {name} has gaps")

    def _damaged(self, path: str | os.PathLike[str]) -> OfaError:
        return self.error(
            f"'{path}' must be a whole {self.name} in Parquet, but it is damaged or something else; make it again with: {self.made_by}"
        )


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """The kind that a file's metadata states; None if it states none, or the file is no intact Parquet file.

    Raises:
        FileError: the file cannot be read.
    """
    try:
        with open_parquet(path) as content:
            kind = _metadata_of(content.metadata).get("kind")
            return kind if isinstance(kind, str) else None
    except DamagedError:
        return None


def now() -> str:
    """The current date and time as stored in files: UTC, ISO 8601, to the second."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def _metadata_of(stored: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Our metadata of a file, under the current names; empty if the file has none."""
    found = stored or {}
    if _KEY.encode() in found:
        return _object(found[_KEY.encode()])
    for key, (kind, schema, version) in _KEYS_BEFORE.items():
        if key.encode() in found:
            values = _object(found[key.encode()])
            return {**values, "kind": kind, "schema": values.get(schema), "ofa": values.get(version, "unknown")}
    return {}


def _object(text: bytes) -> dict[str, Any]:
    value = parse_json(text, what="the metadata", error=DamagedError)
    if not isinstance(value, dict):
        raise DamagedError("its metadata is no object")
    return value
