"""Safe reading of Parquet files: the decompressed size of all pages is known before any is decompressed (decompression bombs)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ofa.errors import DamagedError, FileError
from ofa.files import reason_of
from ofa.reading.files import open_file
from ofa.reading.limits import LARGEST_DECOMPRESSED, LARGEST_FOOTER, LARGEST_TABLE, MOST_COLUMNS, MOST_COMPRESSION, MOST_PARTS, MOST_VALUES
from ofa.reading.thrift import CutOffError, Kept, read_struct
from ofa.seal import check_seal

__all__ = ["ParquetContent", "open_parquet"]

_T = TypeVar("_T")
_TAIL = struct.Struct("<I4s")
_USUAL_PAGE_HEADER, _PAGE_HEADER = 256, 2**20
"""Bytes to read for a page header, usually and at most; a header has some dozen bytes plus the minimum and maximum of the page's values."""
_GROUPS, _COLUMNS, _ROWS, _CHUNK = 4, 1, 3, 3
_TYPE, _PATH, _BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 3, 7, 9, 11
_OF_CHUNK: Kept = {number: {} for number in (_TYPE, _PATH, _BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET)}
_FOOTER: Kept = {_GROUPS: {_COLUMNS: {_CHUNK: _OF_CHUNK}, _ROWS: {}}}
"""Field numbers of the footer, of row groups and of column chunks, from the Parquet format."""
_BYTE_ARRAY = 6
_KIND, _DECOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_2 = 1, 2, 3, 5, 7, 8
"""Field numbers of a page header: kind, decompressed and compressed bytes, and the headers of each kind."""
_DICTIONARY_PAGE = 2
_COUNT = 1
"""Field number, in the headers of each kind, of the number of values."""
_ENCODING = {_DATA: 2, _DATA_2: 4}
_BY_DICTIONARY = (2, 8)


@dataclass(frozen=True)
class _Pages:
    """Size of pages.

    Attributes:
        decompressed: bytes after decompression.
        values: number of values.
        repeated: bytes that dictionary-encoded values may take at most when decoded.
    """

    decompressed: int = 0
    values: int = 0
    repeated: int = 0

    def __add__(self, other: _Pages) -> _Pages:
        return _Pages(self.decompressed + other.decompressed, self.values + other.values, self.repeated + other.repeated)


@dataclass(frozen=True)
class ParquetContent:
    """An open Parquet file.

    Attributes:
        schema: names and types of the columns.
        metadata: of the whole file.
        groups: number of row groups.
        sealed: whether the file has a checksum, which matched.
    """

    schema: pa.Schema
    metadata: Mapping[bytes, bytes]
    groups: int
    sealed: bool
    _file: BinaryIO
    _footer: Any
    _footer_bytes: int
    _most: int

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all rows.

        Args:
            columns: names of the columns to read; all if None.

        Raises:
            DamagedError: the file is damaged, or the rows decompress to more than ``LARGEST_DECOMPRESSED`` bytes plus
                ``MOST_COMPRESSION`` times the file's size, or have more than ``MOST_VALUES`` values.
        """
        return self.read_groups(range(self.groups), columns)

    def read_groups(self, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of some row groups, given by index; everything else as in ``read``."""
        names = self.schema.names if columns is None else list(columns)
        wanted = pa.schema([self.schema.field(name) for name in names])
        repetitive = self._check(groups, names)
        self._file.seek(0)
        source = pq.ParquetFile(self._file, metadata=self._footer, read_dictionary=repetitive)
        # One group at a time, because pyarrow cannot read nested columns of several groups together.
        read = [source.read_row_group(group, columns=names) for group in groups]
        table = pa.concat_tables(read) if read else source.read_row_groups([], columns=names)
        if not repetitive:
            return table
        if sum(_dense_size(chunk) for column in table.columns for chunk in column.chunks) > self._most:
            raise self._too_much()
        return table.cast(wanted.with_metadata(table.schema.metadata))

    def _check(self, groups: Sequence[int], names: Sequence[str]) -> list[str]:
        """Refuse row groups that decompress to too much; returns columns to read as dictionaries, because their decoded size is unknown."""
        of: dict[str, _Pages] = {}
        for group in groups:
            rows = _field(self._chunks[group], _ROWS, 0)
            columns: list[Any] = _field(self._chunks[group], _COLUMNS, [])
            for column in columns:
                chunk: dict[int, Any] = _field(column, _CHUNK, {})
                path = b".".join(_field(chunk, _PATH, [])).decode()
                if any(path == name or path.startswith(f"{name}.") for name in names):
                    of[path] = of.get(path, _Pages()) + self._pages(chunk, rows)
        whole = sum(of.values(), _Pages())
        if whole.decompressed > self._most or whole.values > MOST_VALUES:
            raise self._too_much()
        if whole.decompressed + whole.repeated <= self._most:
            return []
        return [path for path, pages in of.items() if pages.repeated]

    @cached_property
    def _chunks(self) -> list[dict[int, Any]]:
        """Row groups and column chunks from the footer.

        Parsed here, because pyarrow aborts the whole process when it builds its own object from damaged ones.
        """
        self._file.seek(-_TAIL.size - self._footer_bytes, os.SEEK_END)
        found: list[dict[int, Any]] = _field(read_struct(self._file.read(self._footer_bytes), _FOOTER, most=MOST_PARTS)[0], _GROUPS, [])
        if len(found) != self.groups:
            raise DamagedError("its footer does not list its row groups")
        return found

    def _pages(self, chunk: Mapping[int, Any], rows: int) -> _Pages:
        """Size of the pages of a column chunk, from the header of each page, because the footer's sizes cannot be trusted."""
        # A column without values has the offset 0, where no page can begin.
        place = min((start for start in (_field(chunk, _DATA_OFFSET, 0), _field(chunk, _DICTIONARY_OFFSET, 0)) if start), default=0)
        end = place + _field(chunk, _BYTES, 0)
        found, dictionary, by_dictionary = _Pages(), 0, 0
        while 0 < place < end:
            header, length = self._header(place)
            decompressed, compressed = _field(header, _DECOMPRESSED, 0), _field(header, _COMPRESSED, 0)
            if decompressed < 0 or compressed < 0 or not length:
                raise DamagedError("a page of it has no size")
            if header.get(_KIND) == _DICTIONARY_PAGE:
                dictionary = max(dictionary, decompressed)
            kind = _DATA if _DATA in header else _DATA_2
            said: dict[int, Any] = _field(header, kind, {})
            count = _field(said, _COUNT, 0)
            by_dictionary += count if said.get(_ENCODING[kind]) in _BY_DICTIONARY else 0
            found += _Pages(decompressed, max(0, count))
            place += length + compressed
            if found.decompressed > self._most or found.values > MOST_VALUES:
                raise self._too_much()
        repeated = dictionary * by_dictionary if chunk.get(_TYPE) == _BYTE_ARRAY else 0
        return replace(found, values=max(found.values, rows), repeated=repeated)

    def _header(self, place: int) -> tuple[dict[int, Any], int]:
        """The header of a page, and its length in bytes."""
        self._file.seek(place)
        start = self._file.read(_USUAL_PAGE_HEADER)
        try:
            return read_struct(start)
        except CutOffError:
            return read_struct(start + self._file.read(_PAGE_HEADER))

    def _too_much(self) -> DamagedError:
        return DamagedError(
            f"it would decompress to more than {self._most // 2**20} MiB or {MOST_VALUES} values, the limits for a file of its size"
        )


@contextmanager
def open_parquet(path: str | os.PathLike[str], *, what: str = "file", ours: bool = False) -> Iterator[ParquetContent]:
    """Open a Parquet file; errors of reading inside the block are converted too.

    Args:
        path: of the file.
        what: noun for the file in messages.
        ours: whether the project writes such files: they are limited to ``LARGEST_TABLE`` bytes, and a checksum is verified.

    Raises:
        DamagedError: the file is damaged, not Parquet, or decompresses to too much; the message is the reason, as a clause.
        FileError: the file does not exist or cannot be read.
    """
    with open_file(path, what=what) as file:
        try:
            yield _content(file, ours=ours)
        except OSError as error:
            if error.errno is not None:  # without errno it is pyarrow's error for a damaged file
                raise FileError(f"'{os.fspath(path)}' must be a readable {what}, but {reason_of(error)}; check the path") from error
            raise DamagedError(reason_of(error)) from error
        except (pa.ArrowException, ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error, MemoryError) as error:
            raise DamagedError(reason_of(error)) from error


def _content(file: BinaryIO, *, ours: bool) -> ParquetContent:
    size = os.fstat(file.fileno()).st_size
    if ours and size > LARGEST_TABLE:
        raise DamagedError(f"it has {size} bytes, more than {LARGEST_TABLE}")
    file.seek(max(0, size - _TAIL.size))
    length, mark = _TAIL.unpack(file.read(_TAIL.size))
    if mark != b"PAR1" or length > min(size, LARGEST_FOOTER):
        raise DamagedError("it has no whole footer")
    sealed = ours and _is_sealed(file)
    file.seek(0)
    opened = pq.ParquetFile(file)
    if opened.metadata.num_columns > MOST_COLUMNS:
        raise DamagedError(f"it has {opened.metadata.num_columns} columns, more than {MOST_COLUMNS}")
    schema = opened.schema_arrow
    most = LARGEST_DECOMPRESSED + MOST_COMPRESSION * size
    return ParquetContent(schema, schema.metadata or {}, opened.num_row_groups, sealed, file, opened.metadata, length, most)


def _field(fields: Any, number: int, default: _T) -> _T:
    """A field of a footer or header; a field of the wrong type counts as missing, as for all Thrift readers."""
    value = fields.get(number, default) if isinstance(fields, dict) else default
    return value if type(value) is type(default) else default


def _is_sealed(file: BinaryIO) -> bool:
    try:
        return check_seal(file, required=False, what="it")
    except DamagedError as error:
        raise DamagedError("its checksum does not match its content") from error


def _dense_size(array: pa.Array) -> int:
    """Bytes of the values of an array after dictionary decoding."""
    if pa.types.is_dictionary(array.type):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(_dense_size(array.field(number)) for number in range(array.type.num_fields))
    if pa.types.is_map(array.type):
        return _dense_size(array.keys) + _dense_size(array.items)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _dense_size(array.values)
    return int(array.nbytes)
