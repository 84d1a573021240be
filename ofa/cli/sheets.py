"""Results as tables that fit the terminal; text to type or copy is never cut or wrapped.

A table that is too wide for the terminal is shown as a list, with one line for each value.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from ofa.cli.plain import sanitized

__all__ = ["Name", "facts", "line", "records", "words"]

_BORDER = 1
_PADDING = 2
_INDENT = 2


class Name(str):
    """Text to type or copy, such as a path: it is kept on one line, whatever its length."""


def records(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", caption: str = "") -> _Records:
    """A table with a heading for each column; cells are not wrapped.

    Args:
        columns: the headings. If the table is shown as a list, the first column's values are the headings of its entries.
        rows: one text for each column.
        title: title above the table, on one line.
        caption: sentence below the table.
    """
    return _Records(tuple(map(sanitized, columns)), tuple(tuple(map(_shown, row)) for row in rows), sanitized(title), caption)


def facts(rows: Iterable[tuple[str, str]], *, title: str = "", caption: str = "") -> _Facts:
    """A table of names and values; values other than a ``Name`` are wrapped between words.

    Args:
        rows: names with their values.
        title: title above the table, on one line.
        caption: sentence below the table.
    """
    return _Facts(tuple((sanitized(name), _shown(value)) for name, value in rows), sanitized(title), caption)


def words(text: str) -> _Words:
    """Sentences, wrapped between words only."""
    return _Words(text)


def line(text: str) -> Text:
    """Text on one line, such as a command to copy."""
    return Text(sanitized(text), no_wrap=True, overflow="ignore")


def _shown(value: str) -> str:
    """A sanitized value; sanitized here because widths are measured before the console does it."""
    return Name(sanitized(value)) if isinstance(value, Name) else sanitized(value)


def _framed(title: str, body: Table | list[Text], caption: str) -> RenderResult:
    if title:
        yield Text(title, style="bold", no_wrap=True, overflow="ignore")
    yield from body if isinstance(body, list) else (body,)
    if caption:
        yield _Words(caption, style="dim")


@dataclass(frozen=True)
class _Words:
    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in textwrap.wrap(
            sanitized(" ".join(self.text.split())), options.max_width, break_long_words=False, break_on_hyphens=False
        ):
            yield Text(part, style=self.style, no_wrap=True, overflow="ignore")


@dataclass(frozen=True)
class _Records:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str
    caption: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        widest = [max((cell_len(row[i]) for row in self.rows), default=0) for i in range(len(self.columns))]
        headings = list(self.columns)
        if _total(map(max, widest, map(cell_len, headings))) > width:
            headings = [_broken(heading, least) for heading, least in zip(headings, widest, strict=True)]
        least = [max(cells, *map(cell_len, heading.split("\n"))) for cells, heading in zip(widest, headings, strict=True)]
        yield from _framed(self.title, self._table(headings) if _total(least) <= width else self._list(width), self.caption)

    def _table(self, headings: Sequence[str]) -> Table:
        table = Table()
        for heading in headings:
            table.add_column(Text(heading), no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def _list(self, width: int) -> list[Text]:
        lines = []
        for first, *rest in self.rows:
            lines.append(line(f"{self.columns[0]} {first}".strip()))
            lines += _listed(zip(self.columns[1:], rest, strict=True), width, indent=_INDENT)
        return lines


@dataclass(frozen=True)
class _Facts:
    rows: tuple[tuple[str, str], ...]
    title: str
    caption: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        named = max((cell_len(name) for name, _ in self.rows), default=0)
        least = max((_least(value) for _, value in self.rows), default=0)
        fits = _total([named, least]) <= width
        yield from _framed(self.title, self._table() if fits else _listed(self.rows, width), self.caption)

    def _table(self) -> Table:
        table = Table(show_header=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for name, value in self.rows:
            table.add_row(Text(name), line(value) if isinstance(value, Name) else Text(value))
        return table


def _total(widths: Iterable[int]) -> int:
    """Total width of a table with columns of these widths, including borders."""
    return sum(width + _PADDING + _BORDER for width in widths) + _BORDER


def _broken(heading: str, least: int) -> str:
    """A wrapped heading, no wider than the cells below it or its longest word."""
    longest = max(map(cell_len, heading.split()), default=1)
    return "\n".join(textwrap.wrap(heading, max(least, longest))) or heading


def _least(value: str) -> int:
    """The smallest width at which a value is not cut."""
    return cell_len(value) if isinstance(value, Name) else max(map(cell_len, value.split()), default=0)


def _listed(rows: Iterable[tuple[str, str]], width: int, *, indent: int = 0) -> list[Text]:
    """A line for each name and value; long values are wrapped."""
    lines = []
    for name, value in rows:
        first = f"{' ' * indent}{name}: " if name else " " * indent
        if isinstance(value, Name):
            lines.append(line(first + value))
        elif value:
            rest = " " * (indent + _INDENT)
            wrapped = textwrap.wrap(
                value, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
            )
            lines += map(line, wrapped)
    return lines
