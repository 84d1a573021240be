"""The compact protocol of Thrift, by which Parquet writes the headers of its pages: read as far as numbers go, the rest is passed over."""

from __future__ import annotations

from typing import Any

__all__ = ["CutOffError", "read_struct"]

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_DEEPEST = 8


class CutOffError(ValueError):
    """Data that end within a struct."""


def read_struct(data: bytes) -> tuple[dict[int, Any], int]:
    """The fields of the struct that data begin with, by their numbers, and how many bytes it has.

    Whole numbers and structs have their values; of texts, lists and maps only the place is passed.

    Raises:
        CutOffError: the data end within it.
        ValueError: they are no such struct.
    """
    reader = _Reader(data)
    try:
        return reader.struct(0), reader.place
    except IndexError as error:
        raise CutOffError("a header in it is cut off") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("a header in it is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._whole()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind not in (_BYTE, _DOUBLE, _BINARY):  # no header of a page has a map
            raise ValueError("a header in it is of no known kind")
        length = 1 if kind == _BYTE else 8 if kind == _DOUBLE else self._unsigned()
        self.place += length
        if self.place > len(self.data):
            raise CutOffError("a header in it is cut off")
        return None

    def _list(self, depth: int) -> None:
        head = self._byte()
        length = head >> 4 if head >> 4 != 15 else self._unsigned()
        for _ in range(length):
            if head & 15 in (_TRUE, _FALSE):
                self._byte()
            else:
                self._value(head & 15, depth)

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
