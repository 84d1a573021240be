"""A reader of Thrift's compact protocol, the format of Parquet's footer and page headers; it keeps requested fields only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CutOffError", "Kept", "read_struct"]

Kept = Mapping[int, Any]
"""Field numbers to keep, each with the fields to keep of its struct (or of the structs in its list); empty for other types."""

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_DEEPEST = 8


class CutOffError(ValueError):
    """The data end inside a struct."""


def read_struct(data: bytes, kept: Kept | None = None, *, most: int = 0) -> tuple[dict[int, Any], int]:
    """Read the struct at the start of ``data``.

    Args:
        data: bytes that begin with a struct; any bytes may follow.
        kept: fields to keep; None keeps all integers and structs, and skips lists and texts.
        most: largest number of items in all kept lists together.

    Returns:
        The fields by number, and the struct's length in bytes.

    Raises:
        CutOffError: the data end inside the struct.
        ValueError: the data are no such struct, or have too many items.
    """
    reader = _Reader(data, most)
    try:
        return reader.struct(0, kept), reader.place
    except IndexError as error:
        raise CutOffError("a header in it is cut off") from error


class _Reader:
    def __init__(self, data: bytes, most: int) -> None:
        self.data, self.place, self._left = data, 0, most

    def struct(self, depth: int, kept: Kept | None) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("a header in it is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            wanted = kept is None or number in kept
            value = self._value(head & 15, depth, None if kept is None else kept.get(number, {}), items=kept is not None and wanted)
            if wanted:
                fields[number] = value
        return fields

    def _value(self, kind: int, depth: int, kept: Kept | None, *, items: bool) -> Any:
        """Read a value; lists and texts are skipped unless ``items``."""
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._whole()
        if kind == _STRUCT:
            return self.struct(depth + 1, kept)
        if kind in (_LIST, _SET):
            return self._list(depth, kept, items=items)
        if kind not in (_BYTE, _DOUBLE, _BINARY):  # footers and page headers have no maps
            raise ValueError("a header in it has a field of unknown type")
        length = 1 if kind == _BYTE else 8 if kind == _DOUBLE else self._unsigned()
        self.place += length
        if self.place > len(self.data):
            raise CutOffError("a header in it is cut off")
        return self.data[self.place - length : self.place] if items else None

    def _list(self, depth: int, kept: Kept | None, *, items: bool) -> list[Any] | None:
        head = self._byte()
        length = head >> 4 if head >> 4 != 15 else self._unsigned()
        if items:
            self._left -= length
            if self._left < 0:
                raise ValueError("it has more parts than a file of its kind")
        found = []
        for _ in range(length):
            value = self._byte() if head & 15 in (_TRUE, _FALSE) else self._value(head & 15, depth, kept, items=items)
            if items:
                found.append(value)
        return found if items else None

    def _whole(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number in it is too long")

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]
