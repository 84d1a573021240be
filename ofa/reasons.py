"""Messages of other libraries' exceptions in one plain line, without names of exceptions and positions in C++ sources."""

from __future__ import annotations

import re

__all__ = ["one_line", "plain_words", "reason_of"]

NO_MEMORY = "there is not enough memory"
_SIGNS_OF_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|(can't|cannot|failed to|unable to) allocate (\w+ )*(memory|\d)", re.IGNORECASE)
_NOISE = (
    re.compile(r"Exception from \S+:\d+:"),  # OpenVINO
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from .*? failed: ?"),
    re.compile(r"/\S+\.(?:cc|cpp|h|hpp):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? "),  # a source position and a signature
    re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt|Exit)|Exception)(?:: |$)"),  # the last line of a traceback
)
_LONGEST, _LONGEST_SENTENCE, _LONGEST_READ = 400, 1000, 5000


def reason_of(error: BaseException) -> str:
    """The reason of an exception, as one plain line."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError) and error.strerror:
        where = f" ('{error.filename}')" if error.filename else ""
        return error.strerror.lower() + where
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return plain_words(str(error)) or "it says no reason"


def plain_words(text: str) -> str:
    """A message in one line, without the parts that only developers of its library can use."""
    words = one_line(text, longest=_LONGEST_READ)
    if _SIGNS_OF_NO_MEMORY.search(words):
        return NO_MEMORY
    for noise in _NOISE:
        words = noise.sub("", words)
    return one_line(words.rstrip(". "), longest=_LONGEST)


def one_line(text: str, *, longest: int = _LONGEST_SENTENCE) -> str:
    """An untrusted text in one line of at most ``longest`` characters, without control characters of terminals."""
    words = "".join(each if each.isprintable() else " " for each in text[: 4 * longest])
    words = " ".join(words.split())
    return words if len(words) <= longest else f"{words[:longest]} ..."
