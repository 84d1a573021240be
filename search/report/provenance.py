"""Metadata of a file as tables of names and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search.front.columns import figures

__all__ = ["Group", "groups_of", "rows_of"]

Group = tuple[str, list[tuple[str, str]]]
"""A heading, and rows of names and values."""

_LONGEST = 12
_MOST_OBJECTS = 4
_HIDDEN = ("kind", "residuals", "command", "definitions", "space_json")


def groups_of(metadata: Mapping[str, Any], title: str) -> list[Group]:
    """Group metadata: plain values under ``title``, and every nested object under a heading of its own.

    Args:
        metadata: JSON values; long lists are shortened.
        title: heading of the plain values.
    """
    plain = {key: value for key, value in metadata.items() if not isinstance(value, Mapping)}
    groups: list[Group] = [(title, list(_rows(plain)))]
    for key, value in metadata.items():
        if isinstance(value, Mapping) and key not in _HIDDEN:
            groups.append((_words(key), list(_rows(value))))
    return [(heading, rows) for heading, rows in groups if rows]


def rows_of(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All values of ``metadata`` as rows; values of nested objects have the object's name as prefix."""
    return list(_rows(metadata))


def _rows(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{_words(key)}"
        if key in _HIDDEN:
            continue
        if isinstance(value, Mapping):
            yield from _rows(value, f"{name}: ")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            if len(value) > _MOST_OBJECTS:
                yield name, f"{len(value)}"
                continue
            for number, item in enumerate(value, start=1):
                yield from _rows(item if isinstance(item, Mapping) else {"": item}, f"{name} {number}: ")
        elif value is not None and value not in ([], ""):
            yield name, _text(value)


def _words(key: str) -> str:
    name, at, device = str(key).partition("@")
    return name.replace("_", " ") + (f" on {device}" if at else "")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return figures(value, 6).rstrip("0").rstrip(".") if "." in figures(value, 6) else figures(value, 6)
    if isinstance(value, list | tuple):
        shown = ", ".join(map(_text, value[:_LONGEST]))
        return shown if len(value) <= _LONGEST else f"{shown} ... ({len(value)} in all)"
    return str(value)
