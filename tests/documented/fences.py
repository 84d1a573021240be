"""Reads what the README and the pages of docs/ say in fences: commands, Python, files, and output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

from tests.sources import ROOT

__all__ = ["EXTENDING", "LANGUAGES", "PAGES", "Fence", "commands", "page_of", "read_fences", "spans"]

LANGUAGES = ("sh", "python", "toml", "text")

PAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))))
"""The README and all pages, relative to the root of the repository."""

EXTENDING = "docs/extending.md"
"""The page whose examples are a package: ``tests/extending`` installs and runs it."""

_MARK = re.compile(r"^(?P<indent> *)```(?P<info>[^`]*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_WITH = re.compile(r"\b[Ww]ith `([^`\s]+\.[a-z]+)`[^`]*:$")


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page.

    Attributes:
        page: the page, relative to the root of the repository.
        line: of the opening mark, from 1.
        language: the first word behind the mark; empty if there is none.
        name: of the file that the block is, as ``title="NAME"`` or the line before says; empty if it is none.
        text: what stands in the block, without its indentation.
        follows: whether nothing but empty lines stand between this block and the one before.
    """

    page: str
    line: int
    language: str
    name: str
    text: str
    follows: bool = False

    @property
    def place(self) -> str:
        """Where it stands, as editors take it."""
        return f"{self.page}:{self.line}"


def page_of(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def read_fences(page: str, text: str) -> tuple[Fence, ...]:
    """All blocks of a page in their order.

    Raises:
        ValueError: the last block has no end.
    """
    found: list[Fence] = []
    opened: tuple[int, re.Match[str]] | None = None
    body: list[str] = []
    before, follows = "", False
    for number, line in enumerate(text.splitlines(), 1):
        mark = _MARK.match(line)
        if opened is None and mark is not None:
            opened, body = (number, mark), []
        elif opened is not None and mark is not None and not mark["info"].strip():
            start, first = opened
            info = first["info"].strip()
            found.append(Fence(page, start, info.partition(" ")[0], _name(info, before), dedent("\n".join(body) + "\n"), follows))
            opened, follows, before = None, True, ""
        elif opened is not None:
            body.append(line)
        elif line.strip():
            before, follows = line, False
    if opened is not None:
        raise ValueError(f"a block must end, but that of {page}:{opened[0]} does not")
    return tuple(found)


def _name(info: str, before: str) -> str:
    if title := _TITLE.search(info):
        return title[1]
    named = _WITH.search(before.rstrip())
    return "" if named is None else named[1]


def commands(fence: Fence) -> tuple[str, ...]:
    """The commands of a block in their order: continued lines are joined, comments are left out."""
    joined = re.sub(r"\s*\\\n\s*", " ", fence.text)
    lines = (_without_comment(line).strip() for line in joined.splitlines())
    return tuple(line for line in lines if line)


def _without_comment(line: str) -> str:
    """A line up to its comment: a # that begins a word and stands in no quotes."""
    quote = ""
    for place, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place]
    return line


def spans(text: str) -> Iterator[str]:
    """What stands in single backticks outside of blocks, each on one line."""
    inside = False
    prose = []
    for line in text.splitlines():
        if _MARK.match(line):
            inside = not inside
        prose.append("" if inside else line)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(prose)):
        yield " ".join(span.split())
