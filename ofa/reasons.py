"""What the exceptions of libraries and systems say, in one line of plain words: never an exception's name, and no place in C++ sources."""

from __future__ import annotations

import re

__all__ = ["one_line", "plain_words", "reason_of"]

NO_MEMORY = "there is not enough memory"
_SIGNS_OF_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|(can't|cannot|failed to|unable to) allocate (\w+ )*(memory|\d)", re.IGNORECASE)
_NOISE = (
    re.compile(r"Exception from \S+:\d+:"),  # OpenVINO
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from .*? failed: ?"),
    re.compile(r"/\S+\.(?:cc|cpp|h|hpp):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? "),  # a place and a signature
    re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt|Exit)|Exception)(?:: |$)"),  # the last line of a traceback
)
_LONGEST, _LONGEST_SENTENCE, _LONGEST_READ = 400, 1000, 5000


def reason_of(error: BaseException) -> str:
    """Why something failed, by the exception that was raised."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError) and error.strerror:
        where = f" ('{error.filename}')" if error.filename else ""
        return error.strerror.lower() + where
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return plain_words(str(error)) or "it says no reason"


def plain_words(text: str) -> str:
    """The same text in one line without what only developers of its library can use."""
    words = one_line(text, longest=_LONGEST_READ)
    if _SIGNS_OF_NO_MEMORY.search(words):
        return NO_MEMORY
    for noise in _NOISE:
        words = noise.sub("", words)
    return one_line(words.rstrip(". "), longest=_LONGEST)


def one_line(text: str, *, longest: int = _LONGEST_SENTENCE) -> str:
    """A text of somebody else's in one line of at most so many characters, without those that steer a terminal."""
    words = "".join(each if each.isprintable() else " " for each in text[: 4 * longest])
    words = " ".join(words.split())
    return words if len(words) <= longest else f"{words[:longest]} ..."
