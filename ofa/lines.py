"""Files of JSON lines that grow while work is done: each line is on disk before the work goes on, and proves by itself that it is whole."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ofa.errors import FileError
from ofa.files import replacing, unwritable
from ofa.reading import open_file, read_bytes
from ofa.reading.limits import LARGEST_JSON, LARGEST_LINES, MOST_LINES

__all__ = ["Lines", "LinesRead", "append_whole", "as_line", "entry_of", "parse_lines"]

_CHECKSUM = "crc"
_HEAD = re.compile(rb'\{"crc": "([0-9a-f]{8})", ')
_HEAD_BYTES = 20
"""How a line begins. Ahead of all else: what is lost of a line with its checksum is then no line of an earlier version."""
_JOINT = re.compile(rb'.(?=\{"crc": "[0-9a-f]{8}", )', re.DOTALL)
"""Where two lines meet whose end of line is damaged, which must not cost both."""
_SUM = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class LinesRead:
    """What a file of lines held.

    Attributes:
        entries: of the lines that are whole, in order.
        damaged: lines that are not, each of which costs its entry; half a last line, which its writer did not live to end, is none.
    """

    entries: tuple[dict[str, Any], ...]
    damaged: int


class Lines:
    """A file of JSON objects, one a line, each with the CRC-32 of the rest of its text as its first key, ``crc``.

    One process appends at a time (``ofa.locking.writing``); any may read meanwhile.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry, which is on disk when this returns; half a line that a killed writer left behind goes.

        Raises:
            FileError: the file cannot be written, or the disk is full; what was there before is still there.
        """
        try:
            with open_file(self.path) as file:
                goes_on = _HEAD.match(file.read(_HEAD_BYTES)) is not None
        except FileError:  # it is not there, or no file, which the writing tells
            goes_on = False
        if not goes_on:  # a new file, or one of an earlier version: in one file all lines have a checksum, or none
            self.write([*self.read().entries, entry])
            return
        try:
            with self.path.open("ab+", buffering=0) as file:
                append_whole(file, as_line(entry))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Put these entries in place of all that are there.

        Raises:
            FileError: the file cannot be written, or the disk is full; what was there before is still there.
        """
        with replacing(self.path) as temporary:
            temporary.write_bytes(b"".join(map(as_line, entries)))

    def read(self) -> LinesRead:
        """All entries that are whole; none if there is no file.

        Raises:
            FileError: the file is there and cannot be read, or is larger than any that this project writes.
        """
        if not os.path.lexists(self.path):
            return LinesRead((), 0)
        content = read_bytes(self.path, most=LARGEST_LINES)
        if content.count(b"\n") > MOST_LINES:
            raise FileError(f"a file of lines must have at most {MOST_LINES}, but '{self.path}' has more; delete it")
        return parse_lines(content)


def parse_lines(content: bytes) -> LinesRead:
    """The entries of a file's content."""
    *lines, _half = content.split(b"\n")
    parts = [part for line in lines if line.strip() for part in ([line] if entry_of(line) is not None else _JOINT.split(line))]
    checked = any(map(_HEAD.match, parts))
    entries = [entry_of(part) for part in parts if not checked or _HEAD.match(part)]
    whole = tuple(entry for entry in entries if entry is not None)
    return LinesRead(whole, len(parts) - len(whole))


def as_line(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line, with its checksum.

    Args:
        entry: at least one key, and none that is called ``crc``.
    """
    text = json.dumps(dict(entry))
    return f'{{"{_CHECKSUM}": "{_sum(text.encode())}", {text[1:]}\n'.encode()


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, without its end and its checksum; None if it is not as it was written.

    Lines of earlier versions have no checksum.
    """
    head = _HEAD.match(line)
    text = line.rstrip(b"\r")
    if head is not None:
        text = b"{" + text[head.end() :]
        if head[1].decode() != _sum(text):
            return None
    try:
        entry = json.loads(text) if len(text) <= LARGEST_JSON else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or (head is None and _had_a_checksum(entry)):
        return None
    return entry


def append_whole(file: IO[bytes], lines: bytes) -> None:
    """Write lines to the disk, or nothing of them; half a line that a killed writer left behind goes.

    Args:
        file: open for reading and appending, without a buffer.
        lines: of ``as_line``.

    Raises:
        OSError: the disk is full, or broken.
    """
    _cut_half_line(file)
    end = file.seek(0, os.SEEK_END)
    try:
        while lines:  # a disk that is nearly full takes a part first
            lines = lines[file.write(lines) :]
    except OSError:
        file.truncate(end)
        raise
    os.fsync(file.fileno())


def _cut_half_line(file: IO[bytes]) -> None:
    """Cut off what stands behind the last end of a line; whole entries end with one."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def _had_a_checksum(entry: Mapping[str, Any]) -> bool:
    """Whether a line without a whole checksum is one whose checksum, or the key of it, was damaged."""
    first = next(iter(entry.values()), None)
    return _CHECKSUM in entry or (isinstance(first, str) and _SUM.fullmatch(first) is not None)


def _sum(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"
