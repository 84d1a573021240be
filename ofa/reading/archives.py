"""Checks of zip archives of ``torch.save``: no compression, no overlapping entries, matching checksums."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from ofa.reading.limits import LARGEST_DIRECTORY, UnfitError

__all__ = ["check_archive"]

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED = 0
_FULL = 2**32 - 1
_CHUNK = 2**20


def check_archive(file: BinaryIO, size: int, name: str) -> tuple[int, int]:
    """Check that an archive is no zip bomb (its content is not larger than itself), and find one entry.

    Args:
        file: the archive.
        size: of the file in bytes.
        name: of the entry, without the common top folder.

    Returns:
        Offset and length of the entry's content, in bytes.

    Raises:
        UnfitError, struct.error: the archive is damaged, compressed, or lacks the entry.
    """
    place, length = _directory(file, size)
    if not 0 <= place <= place + length <= size or length > LARGEST_DIRECTORY:
        raise UnfitError("its directory is damaged")
    file.seek(place)
    directory, total, found = file.read(length), 0, None
    entries: list[tuple[int, int, int]] = []
    at = 0
    while at < length:
        entry = _ENTRY.unpack_from(directory, at)
        mark, method, packed, unpacked, (name_length, extra_length, comment_length) = entry[0], entry[6], entry[10], entry[11], entry[12:15]
        start = at + _ENTRY.size
        if mark != b"PK\x01\x02" or method != _STORED or packed != unpacked or unpacked == _FULL:
            raise UnfitError("an entry of it is compressed or damaged")
        total += unpacked
        entries.append((entry[18], unpacked, entry[9]))
        if directory[start : start + name_length].partition(b"/")[2] == name.encode():
            found = entry[18], unpacked
        at = start + name_length + extra_length + comment_length
    if total > size or found is None:
        raise UnfitError("its entries share bytes, or one is missing")
    for at, size_of, checksum in entries:
        if _checksum(file, _content(file, at), size_of) != checksum:
            raise UnfitError("the checksum of an entry of it does not match")
    return _content(file, found[0]), found[1]


def _content(file: BinaryIO, at: int) -> int:
    """Offset of the content of the entry whose local header is at ``at``."""
    file.seek(at)
    local = _LOCAL.unpack(file.read(_LOCAL.size))
    return int(at + _LOCAL.size + local[9] + local[10])


def _checksum(file: BinaryIO, start: int, length: int) -> int:
    file.seek(start)
    value = 0
    while chunk := file.read(min(_CHUNK, length)):
        value, length = zlib.crc32(chunk, value), length - len(chunk)
    return value


def _directory(file: BinaryIO, size: int) -> tuple[int, int]:
    """Offset and length of the central directory, in bytes."""
    file.seek(max(0, size - _END.size))
    mark, *_, length, place, comment = _END.unpack(file.read(_END.size))
    if mark != b"PK\x05\x06" or comment:
        raise UnfitError("it has no end")
    end = size - _END.size
    file.seek(max(0, end - _LOCATOR.size))
    locator = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if locator[0] == b"PK\x06\x07":
        file.seek(locator[2])
        end_64 = _END_64.unpack(file.read(_END_64.size))
        if end_64[0] != b"PK\x06\x06":
            raise UnfitError("it has no end")
        end, length, place = locator[2], end_64[8], end_64[9]
    if place + length != end:
        raise UnfitError("it has extra bytes between its directory and its end")
    return int(place), int(length)
