"""A file's own checksum, kept inside the file wherever its format has room for a text.

A writer puts ``BLANK_SEAL`` there once. When the file is complete, ``seal`` replaces the zeros by the SHA-256 of all bytes of the file
with the zeros in their place, so that every byte is covered. ``check_seal`` computes the same sum before anything is parsed. It proves
that a file is as it was written, not who wrote it: anybody can compute it, so it is no signature.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ofa.errors import DamagedError, FileError

__all__ = ["BLANK_SEAL", "SEAL_KEY", "check_seal", "is_seal", "seal"]

_MARK, _DIGITS = "ofa-seal:", 64
BLANK_SEAL = _MARK + "0" * _DIGITS
"""What a writer puts into a file once, and ``seal`` fills in."""
SEAL_KEY = "seal"
"""Under which name formats with keys keep it."""

_SEAL = re.compile(rb"ofa-seal:([0-9a-f]{64})")
_ALIKE = 6
"""Characters of a mark, of nine, by which a damaged one is known."""
_IS_DIGIT = bytes(ord("x") if chr(value) in "0123456789abcdef" else ord(".") for value in range(256))
_CHUNK = 1 << 20
_OVERLAP = len(BLANK_SEAL) - 1
"""Bytes that are looked at again with the next chunk: one less than a seal has, so that none is found twice."""


def seal(path: str | os.PathLike[str]) -> None:
    """Fill in the blank seal of a complete file; a file without one, and one that is sealed already, stay as they are.

    Raises:
        FileError: there is more than one, so that a text of the user's looks like a seal.
        OSError: the file cannot be read or written.
    """
    with Path(path).open("r+b") as file:
        digest, found = _sum(file)
        if len(found) > 1:
            raise FileError(
                f"a file must hold one checksum of its own, but {len(found)} texts in it look like one; rename the class, space or file "
                f"that is called '{_MARK}...'"
            )
        if found and found[0][1] == b"0" * _DIGITS:
            file.seek(found[0][0] + len(_MARK))
            file.write(digest)


def check_seal(source: str | os.PathLike[str] | bytes | BinaryIO, *, required: bool, what: str) -> bool:
    """See that a file is as it was written.

    Args:
        source: the file's path, all of its bytes, or the open file, which is left at its beginning.
        required: whether a file without a checksum is damaged; older ones, and files that people write by hand, have none.
        what: the file's name in the error, such as ``'t.parquet'`` with its quotation marks.

    Returns:
        Whether it has a checksum.

    Raises:
        DamagedError: the checksum does not fit the content, or there is none and it is required.
        OSError: the file cannot be read.
    """
    with _opened(source) as file:
        digest, found = _sum(file)
        damaged = not found and _has_damaged_seal(file)
    if [digest] == [value for _, value in found]:
        return True
    if found or damaged:
        raise DamagedError(
            f"{what} must be as it was written, but its checksum does not fit its content; copy it again or make it anew (who changed it "
            f"on purpose takes the text '{_MARK}...' out)"
        )
    if required:
        raise DamagedError(f"{what} must be as it was written, but its checksum is gone; copy it again or make it anew")
    return False


def is_seal(value: object) -> bool:
    """Whether a value that was read is a checksum, blank or not."""
    return isinstance(value, str) and _SEAL.fullmatch(value.encode("utf-8", "replace")) is not None


@contextmanager
def _opened(source: str | os.PathLike[str] | bytes | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield file
    else:
        source.seek(0)
        yield source
        source.seek(0)


def _sum(file: BinaryIO) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The checksum of a file's bytes in hexadecimal digits, and where its seals begin, each with its digits."""
    found: list[tuple[int, bytes]] = []
    digest, rest, start = hashlib.sha256(), b"", 0

    def blank(match: re.Match[bytes]) -> bytes:
        found.append((start + match.start(), match[1]))
        return BLANK_SEAL.encode()

    while chunk := file.read(_CHUNK):
        window = _SEAL.sub(blank, rest + chunk)
        digest.update(window[:-_OVERLAP])
        start += max(0, len(window) - _OVERLAP)
        rest = window[-_OVERLAP:]
    digest.update(rest)
    return digest.hexdigest().encode(), found


def _has_damaged_seal(file: BinaryIO) -> bool:
    """Whether a file without a seal has a mark with other than digits behind it, or digits with nearly a mark before them."""
    mark, digits, rest = _MARK.encode(), b"x" * _DIGITS, b""
    file.seek(0)
    while chunk := file.read(_CHUNK):
        window = rest + chunk
        if mark in window:
            return True
        kinds, at = window.translate(_IS_DIGIT), 0
        while (at := kinds.find(digits, at)) >= 0:
            # The mark's last character may have become a digit.
            for end in (at, at + 1):
                if sum(one == other for one, other in zip(window[max(0, end - len(mark)) : end], mark, strict=False)) >= _ALIKE:
                    return True
            at = kinds.find(b".", at) if b"." in kinds[at:] else len(kinds)
        rest = window[-len(BLANK_SEAL) :]
    return False
