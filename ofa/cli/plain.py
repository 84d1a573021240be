"""Sanitizing of untrusted text, such as file names and answers of devices: on one line, without terminal escapes."""

from __future__ import annotations

import re

from ofa.storage_url import without_passwords

__all__ = ["LONGEST", "sanitized", "sentence"]

LONGEST = 500
"""Longest message in characters."""
_FEWEST = 3
"""Fewest items of a list that are named."""
_LIST = re.compile(r"(?<!\S)(?:[^\s,;]++, ){8,}(?:and )?[^\s,;]+")
_WORD = re.compile(r"[^\s]{120,}")
_LONGEST_WORD = 100
_CUT = " ... "


def sanitized(text: str) -> str:
    r"""The text with unprintable characters escaped as in Python, such as ``\x1b``.

    Unprintable are control characters, including line ends, bidirectional controls, and bytes that are no valid UTF-8.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return without_passwords(text)


def sentence(text: str) -> str:
    """A message on one line of at most ``LONGEST`` characters; it is cut in the middle, so that the rule and the next step stay."""
    text = sanitized(" ".join(text.split()))
    if len(text) > LONGEST:
        text = _LIST.sub(_fewer, text)
    if len(text) > LONGEST:
        text = _WORD.sub(lambda word: _without_middle(word[0], _LONGEST_WORD, "..."), text)
    return text if len(text) <= LONGEST else _without_middle(text, LONGEST, _CUT)


def _fewer(found: re.Match[str]) -> str:
    """A list, shortened to the items that fit beside the rest of the message."""
    items = found[0].replace(", and ", ", ").split(", ")
    room = max(0, LONGEST - (len(found.string) - len(found[0])) - len(f" and {len(items)} more"))
    kept = len(items)
    while kept > _FEWEST and len(", ".join(items[:kept])) > room:
        kept -= 1
    return found[0] if kept == len(items) else f"{', '.join(items[:kept])} and {len(items) - kept} more"


def _without_middle(text: str, length: int, cut: str) -> str:
    front = (length - len(cut)) * 3 // 5
    return f"{text[:front]}{cut}{text[front + len(cut) - length :]}"
