"""Append-only files of JSON lines: each line is on disk (fsync) before the work continues, and has a checksum of its own."""

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
"""Start of a line. The checksum comes first: a line whose start is lost cannot pass for a line of an earlier version, which had none."""
_JOINT = re.compile(rb'.(?=\{"crc": "[0-9a-f]{8}", )', re.DOTALL)
"""Where two lines join if the newline between them is damaged; splitting there saves the second line."""
_SUM = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class LinesRead:
    """The content of a file of lines.

    Attributes:
        entries: of the intact lines, in order.
        damaged: number of damaged lines; an unfinished last line of a killed writer does not count.
    """

    entries: tuple[dict[str, Any], ...]
    damaged: int


class Lines:
    """A file of JSON objects, one per line; the first key of each, ``crc``, is the CRC-32 of the rest of the line.

    One process appends at a time (``ofa.locking.writing``); others may read meanwhile.

    Args:
        path: of the file, which need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append an entry, which is on disk on return; an unfinished line of a killed writer is cut off.

        Args:
            entry: JSON values, at least one, without the key ``crc``.

        Raises:
            FileError: the file cannot be written, or the disk is full; earlier entries are still there.
        """
        try:
            with open_file(self.path) as file:
                goes_on = _HEAD.match(file.read(_HEAD_BYTES)) is not None
        except FileError:  # missing, or no file, which the write reports
            goes_on = False
        if not goes_on:  # new, or of an earlier version: the lines of one file all have checksums, or none has
            self.write([*self.read().entries, entry])
            return
        try:
            with self.path.open("ab+", buffering=0) as file:
                append_whole(file, as_line(entry))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replace all entries.

        Raises:
            FileError: the file cannot be written, or the disk is full; the earlier entries are still there.
        """
        with replacing(self.path) as temporary:
            temporary.write_bytes(b"".join(map(as_line, entries)))

    def read(self) -> LinesRead:
        """Read all intact entries; none if there is no file.

        Raises:
            FileError: the file exists and cannot be read, or is larger than any that this project writes.
        """
        if not os.path.lexists(self.path):
            return LinesRead((), 0)
        content = read_bytes(self.path, most=LARGEST_LINES)
        if content.count(b"\n") > MOST_LINES:
            raise FileError(f"a file of lines must have at most {MOST_LINES}, but '{self.path}' has more; delete it")
        return parse_lines(content)


def parse_lines(content: bytes) -> LinesRead:
    """Parse the content of a file of lines."""
    *lines, _half = content.split(b"\n")
    parts = [part for line in lines if line.strip() for part in ([line] if entry_of(line) is not None else _JOINT.split(line))]
    checked = any(map(_HEAD.match, parts))
    entries = [entry_of(part) for part in parts if not checked or _HEAD.match(part)]
    whole = tuple(entry for entry in entries if entry is not None)
    return LinesRead(whole, len(parts) - len(whole))


def as_line(entry: Mapping[str, Any]) -> bytes:
    """Format an entry as a line with its checksum, including the newline.

    Args:
        entry: JSON values, at least one, without the key ``crc``.
    """
    text = json.dumps(dict(entry))
    return f'{{"{_CHECKSUM}": "{_sum(text.encode())}", {text[1:]}\n'.encode()


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Parse a line, given without its newline; the checksum is checked and removed.

    Returns:
        The entry; None if the line is damaged. Lines of earlier versions, without a checksum, are accepted.
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
    """Append all lines or none, with fsync; an unfinished line of a killed writer is cut off.

    Args:
        file: open for reading and appending, unbuffered.
        lines: results of ``as_line``, joined.

    Raises:
        OSError: the disk is full, or fails.
    """
    _cut_half_line(file)
    end = file.seek(0, os.SEEK_END)
    try:
        while lines:  # on a nearly full disk, ``write`` may write a part only
            lines = lines[file.write(lines) :]
    except OSError:
        file.truncate(end)
        raise
    os.fsync(file.fileno())


def _cut_half_line(file: IO[bytes]) -> None:
    """Truncate the file after its last newline, with which every whole entry ends."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def _had_a_checksum(entry: Mapping[str, Any]) -> bool:
    """Whether a line without a valid checksum has a damaged one (key or value), as opposed to a line of an earlier version."""
    first = next(iter(entry.values()), None)
    return _CHECKSUM in entry or (isinstance(first, str) and _SUM.fullmatch(first) is not None)


def _sum(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"
