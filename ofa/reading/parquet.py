"""Parquet files, whose few bytes may say many: what their pages hold is known before any is decompressed."""

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
"""Bytes of a page's header, and at most: one has some dozen, and the least and greatest of its values."""
_GROUPS, _COLUMNS, _ROWS, _CHUNK = 4, 1, 3, 3
_TYPE, _PATH, _BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 3, 7, 9, 11
_OF_CHUNK: Kept = {number: {} for number in (_TYPE, _PATH, _BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET)}
_FOOTER: Kept = {_GROUPS: {_COLUMNS: {_CHUNK: _OF_CHUNK}, _ROWS: {}}}
"""Numbers of the fields of a footer, of a group of rows and of a chunk of a column, as the Parquet format gives them."""
_BYTE_ARRAY = 6
_KIND, _DECOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_2 = 1, 2, 3, 5, 7, 8
"""Numbers of the fields of a page's header: kind, bytes with and without compression, and the headers of the kinds."""
_DICTIONARY_PAGE = 2
_COUNT = 1
"""In the headers of the kinds: how many values the page has."""
_ENCODING = {_DATA: 2, _DATA_2: 4}
_BY_DICTIONARY = (2, 8)


@dataclass(frozen=True)
class _Pages:
    """What the pages of a column hold: bytes when decompressed, values, and how many bytes those by dictionary may become at most."""

    decompressed: int = 0
    values: int = 0
    repeated: int = 0

    def __add__(self, other: _Pages) -> _Pages:
        return _Pages(self.decompressed + other.decompressed, self.values + other.values, self.repeated + other.repeated)


@dataclass(frozen=True)
class ParquetContent:
    """An open Parquet file.

    Attributes:
        schema: names and kinds of its columns.
        metadata: of the file as a whole.
        groups: how many groups of rows it has.
        sealed: whether it carries a checksum, which fits.
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
        """All rows.

        Args:
            columns: names of those that are read; None reads all.

        Raises:
            DamagedError: they are damaged, or decompress to more than ``MOST_COMPRESSION`` times the size of the file.
        """
        return self.read_groups(range(self.groups), columns)

    def read_groups(self, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of some groups; the rest as of ``read``."""
        names = self.schema.names if columns is None else list(columns)
        wanted = pa.schema([self.schema.field(name) for name in names])
        repetitive = self._check(groups, names)
        self._file.seek(0)
        source = pq.ParquetFile(self._file, metadata=self._footer, read_dictionary=repetitive)
        # One by one, because pyarrow joins no nested columns of several groups.
        read = [source.read_row_group(group, columns=names) for group in groups]
        table = pa.concat_tables(read) if read else source.read_row_groups([], columns=names)
        if not repetitive:
            return table
        if sum(_dense_size(chunk) for column in table.columns for chunk in column.chunks) > self._most:
            raise self._too_much()
        return table.cast(wanted.with_metadata(table.schema.metadata))

    def _check(self, groups: Sequence[int], names: Sequence[str]) -> list[str]:
        """Refuse what decompresses to too much; the columns whose values must be counted by their dictionaries."""
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
        """The groups of rows and their chunks of columns as the footer says it.

        pyarrow ends the whole process where it builds its own object of a damaged one, so it is not asked for it.
        """
        self._file.seek(-_TAIL.size - self._footer_bytes, os.SEEK_END)
        found: list[dict[int, Any]] = _field(read_struct(self._file.read(self._footer_bytes), _FOOTER, most=MOST_PARTS)[0], _GROUPS, [])
        if len(found) != self.groups:
            raise DamagedError("its footer does not say what it is made of")
        return found

    def _pages(self, chunk: Mapping[int, Any], rows: int) -> _Pages:
        """Those of a chunk of a column, by the headers that stand before each of them and not by what the footer says of their sizes."""
        # A column without values says 0, where no page can begin.
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
        """The header of a page, and its length."""
        self._file.seek(place)
        start = self._file.read(_USUAL_PAGE_HEADER)
        try:
            return read_struct(start)
        except CutOffError:
            return read_struct(start + self._file.read(_PAGE_HEADER))

    def _too_much(self) -> DamagedError:
        return DamagedError(
            f"it would decompress to more than {self._most // 2**20} MiB or {MOST_VALUES} values, which no file of its size does"
        )


@contextmanager
def open_parquet(path: str | os.PathLike[str], *, what: str = "file", ours: bool = False) -> Iterator[ParquetContent]:
    """Open a Parquet file; what its readers meet within the block is an error of this function.

    Args:
        path: the file.
        what: the noun that errors of opening call it by.
        ours: whether it is one that the project writes: of no more than ``LARGEST_TABLE`` bytes, and whole if it carries a checksum.

    Raises:
        DamagedError: it is damaged, something else than Parquet, or decompresses to too much; the message is the reason, half a sentence.
        FileError: it is absent or cannot be read.
    """
    with open_file(path, what=what) as file:
        try:
            yield _content(file, ours=ours)
        except OSError as error:
            if error.errno is not None:  # else pyarrow's own, of a damaged file
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
    """A field of a footer or header; one of another kind is none, as for all readers of Thrift."""
    value = fields.get(number, default) if isinstance(fields, dict) else default
    return value if type(value) is type(default) else default


def _is_sealed(file: BinaryIO) -> bool:
    try:
        return check_seal(file, required=False, what="it")
    except DamagedError as error:
        raise DamagedError("its checksum does not fit its content") from error


def _dense_size(array: pa.Array) -> int:
    """Bytes of the values of an array, each of its dictionary as often as it stands."""
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
