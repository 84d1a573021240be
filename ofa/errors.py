"""The error classes of the library. Every message states the rule, the values that broke it, and the next step, in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArchError",
    "BudgetError",
    "DamagedError",
    "DataError",
    "DeviceError",
    "ExportError",
    "FileError",
    "MissingExtraError",
    "OfaError",
    "RecipeError",
    "SchemaError",
    "SearchError",
    "SpaceError",
    "TableError",
    "TrustError",
    "WeightsError",
    "nearest",
]


class OfaError(Exception):
    """Base of all errors that this project raises for its users.

    Attributes:
        key: name of the argument at fault; None if it is none or several.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class SpaceError(OfaError):
    """A space that does not exist, or that does not match the file or network it is used with."""


class ArchError(OfaError):
    """An architecture that is not a point of its space."""


class WeightsError(OfaError):
    """Weights that are damaged, incomplete or from another network."""


class DataError(OfaError):
    """Images or labels that cannot be used."""


class RecipeError(OfaError):
    """A training recipe with unknown keys or impossible values.

    Attributes:
        path: the key at fault, as table names from the outermost inwards; None if it is not one key.
    """

    path: tuple[str | int, ...] | None = None


class FileError(OfaError):
    """A file that cannot be read or written."""


class DamagedError(FileError):
    """A file that changed after it was written: its checksum does not match its content, or is missing."""


class SchemaError(FileError):
    """A file whose content breaks its schema: a key is missing, or a value has the wrong type."""


class DeviceError(OfaError):
    """A device or runtime that is unknown, unreachable or failing."""


class TableError(OfaError):
    """A latency table that is incomplete, damaged, or for another space or device."""


class SearchError(OfaError):
    """A search that cannot be run or has no answer."""


class BudgetError(SearchError):
    """A budget that no network of the space meets."""


class ExportError(OfaError):
    """A network that cannot be exported, or an export whose outputs differ from the network's."""


class TrustError(OfaError):
    """A file asks for something that only the user may ask for, such as importing code."""


class MissingExtraError(OfaError):
    """A feature whose optional dependency is not installed.

    Args:
        feature: the start of the message, such as the name of a runtime.
        extra: name of the extra of the distribution ``ofa-nas``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}', which is not installed; install it with: pip install 'ofa-nas[{extra}]'")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown ``word``: the closest choice, if any is close, and all choices."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(known)}"
