"""Seals: a checksum inside the file itself, for formats with room for a text.

A writer puts ``BLANK_SEAL`` into the file once. When the file is complete, ``seal`` replaces its zeros by the SHA-256 of the whole file,
computed with the zeros in place, so that every byte is covered. ``check_seal`` recomputes the sum before the file is parsed. A seal
shows that a file is unchanged, not who wrote it: anybody can compute it, so it is no signature.
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
"""Placeholder that a writer puts into a file once, for ``seal`` to fill in."""
SEAL_KEY = "seal"
"""Key of the seal in formats with keys."""

_SEAL = re.compile(rb"ofa-seal:([0-9a-f]{64})")
_ALIKE = 6
"""Number of the mark's nine characters that must match for a damaged mark to be recognized."""
_IS_DIGIT = bytes(ord("x") if chr(value) in "0123456789abcdef" else ord(".") for value in range(256))
_CHUNK = 1 << 20
_OVERLAP = len(BLANK_SEAL) - 1
"""Bytes of a chunk that are searched again with the next: one fewer than a seal has, so that no seal is found twice."""


def seal(path: str | os.PathLike[str]) -> None:
    """Fill in the blank seal of a complete file; a file without a seal, or with a filled one, is left unchanged.

    Raises:
        FileError: there is more than one seal, because a text of the user looks like one.
        OSError: the file cannot be read or written.
    """
    with Path(path).open("r+b") as file:
        digest, found = _sum(file)
        if len(found) > 1:
            raise FileError(
                f"a file must contain one checksum of its own, but {len(found)} texts in it look like one; rename the class, space or file "
                f"whose name is '{_MARK}...'"
            )
        if found and found[0][1] == b"0" * _DIGITS:
            file.seek(found[0][0] + len(_MARK))
            file.write(digest)


def check_seal(source: str | os.PathLike[str] | bytes | BinaryIO, *, required: bool, what: str) -> bool:
    """Check that a file is unchanged since it was written.

    Args:
        source: the file's path, all of its bytes, or the open file, which is left at its beginning.
        required: whether a missing checksum counts as damage; files of older versions, and files written by hand, have none.
        what: the file's name in the message, such as ``'t.parquet'`` with its quotation marks.

    Returns:
        Whether the file has a checksum.

    Raises:
        DamagedError: the checksum does not match the content, or is missing although required.
        OSError: the file cannot be read.
    """
    with _opened(source) as file:
        digest, found = _sum(file)
        damaged = not found and _has_damaged_seal(file)
    if [digest] == [value for _, value in found]:
        return True
    if found or damaged:
        raise DamagedError(
            f"{what} must be as it was written, but its checksum does not match its content; copy it again or make it anew (if you "
            f"changed it on purpose, remove the text '{_MARK}...')"
        )
    if required:
        raise DamagedError(f"{what} must be as it was written, but its checksum is missing; copy it again or make it anew")
    return False


def is_seal(value: object) -> bool:
    """Whether a value is a seal, blank or filled."""
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
    """The checksum of a file with blank seals, in hexadecimal, and the (offset, digits) of each seal."""
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
    """Whether a file without a valid seal has a mark without 64 digits after it, or 64 digits after a nearly valid mark."""
    mark, digits, rest = _MARK.encode(), b"x" * _DIGITS, b""
    file.seek(0)
    while chunk := file.read(_CHUNK):
        window = rest + chunk
        if mark in window:
            return True
        kinds, at = window.translate(_IS_DIGIT), 0
        while (at := kinds.find(digits, at)) >= 0:
            # Damage may have turned the mark's last character into a digit.
            for end in (at, at + 1):
                if sum(one == other for one, other in zip(window[max(0, end - len(mark)) : end], mark, strict=False)) >= _ALIKE:
                    return True
            at = kinds.find(b".", at) if b"." in kinds[at:] else len(kinds)
        rest = window[-len(BLANK_SEAL) :]
    return False
