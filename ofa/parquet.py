"""Parquet files with typed metadata inside: written whole or not at all, and read only if they are what they should be."""

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
"""Under which a file carries its metadata as JSON: the fields of a dataclass, with ``kind``, ``schema`` and ``ofa``, the version."""
_KEYS_BEFORE = {"ofa_latency_table": ("latency table", "schema_version", "ofa_version")}
"""Under which earlier versions wrote them: the kind, and how the schema and the version were called."""

_TURN_S = 10.0
"""In which another writer, who writes the same file just now, has ended; one who works on it for longer is told."""
_HOLDS: Mapping[type, Callable[[pa.DataType], bool]] = {
    str: lambda held: pa.types.is_string(held) or pa.types.is_large_string(held),
    int: pa.types.is_integer,
    float: lambda held: pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_boolean(held) or pa.types.is_null(held),
    bool: pa.types.is_boolean,
}
"""Whether a column of some kind of values holds what it should."""


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[Info]):
    """One kind of files: what they hold, and how they are called in messages.

    Attributes:
        name: such as ``front``; files carry it.
        info: the dataclass of what is known of the rows; its fields are checked when a file is read (``ofa.schema``).
        schema: version of the layout; raise it whenever an older reader would misunderstand a file.
        oldest: the oldest layout that is still read.
        sealed: the oldest layout whose files carry a checksum (``ofa.seal``).
        columns: that a file must have, and whether they hold texts, whole numbers, numbers or yes and no; all others hold numbers.
        gaps: columns of other than numbers that may be empty in some rows.
        optional: columns of other than numbers that a file may have, as ``columns``.
        made_by: the command that makes such files.
        renew: rows of earlier layouts as rows of now.
        error: the class of all errors of reading.
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
        """Write rows with what is known of them; a file that is there is replaced when all is written.

        Raises:
            FileError: the path cannot be written, is named as another kind of file, or somebody else is writing it.
        """
        check_ending(Path(path), PARQUET)
        metadata = {SEAL_KEY: BLANK_SEAL, **to_json(info), "kind": self.name, "schema": self.schema, "ofa": __version__}
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata({_KEY: json.dumps(metadata)})
        # Through Python's own files, which know every name that the system does, and no other kind of address.
        with writing(path, f"writing a {self.name}", wait_s=_TURN_S), replacing(path) as temporary, temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")

    def read(self, path: str | os.PathLike[str]) -> tuple[pd.DataFrame, Info]:
        """Read what ``write`` wrote.

        Raises:
            OfaError: of the class ``error``: the file is absent, damaged, of another kind, of a schema that is not read here, or says
                what cannot be.
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
        """The error of a file that is of the kind, but not whole."""
        return self.error(f"'{path}' must be a whole {self.name}, but {reason}; make it again with: {self.made_by}")

    def _stamp(self, path: str | os.PathLike[str], content: ParquetContent) -> Mapping[str, Any]:
        """What a file says of itself, if it is of this kind."""
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
    """What kind a file says it is; None if it is no whole Parquet file, or does not say.

    Raises:
        FileError: it cannot be read.
    """
    try:
        with open_parquet(path) as content:
            kind = _metadata_of(content.metadata).get("kind")
            return kind if isinstance(kind, str) else None
    except DamagedError:
        return None


def now() -> str:
    """The date and time that files carry: UTC, ISO 8601."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def _metadata_of(stored: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What a file carries, by the names of now; empty if it carries nothing of ours."""
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
