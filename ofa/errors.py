"""The errors that users meet. Every message states the rule, the values that broke it, and the next step, in one sentence."""

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
        key: the one argument that the error is about; None if it is about none, or about several.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class SpaceError(OfaError):
    """A space that does not exist, or one that does not fit the thing it is used with."""


class ArchError(OfaError):
    """An architecture that is not a point of its space."""


class WeightsError(OfaError):
    """Weights that are damaged, incomplete or of another network."""


class DataError(OfaError):
    """Images or labels that cannot be used."""


class RecipeError(OfaError):
    """A training recipe with unknown keys or impossible values.

    Attributes:
        path: the key that is wrong, from the outermost table in; None if it is not about one key.
    """

    path: tuple[str | int, ...] | None = None


class FileError(OfaError):
    """A file that cannot be read or written."""


class DamagedError(FileError):
    """A file that is not as it was written: its checksum does not fit its content, or is gone."""


class SchemaError(FileError):
    """What a file says cannot be: a key is missing, or a value is of another kind."""


class DeviceError(OfaError):
    """A device or runtime that is unknown, unreachable or failing."""


class TableError(OfaError):
    """A latency table that is incomplete, damaged, or of another space or device."""


class SearchError(OfaError):
    """A search that cannot be run or has no answer."""


class BudgetError(SearchError):
    """A budget that no network of the space meets."""


class ExportError(OfaError):
    """A network that cannot be exported, or an export that does not compute what the network does."""


class TrustError(OfaError):
    """A file says what only a user may say, such as which code is imported."""


class MissingExtraError(OfaError):
    """A feature whose optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}', which is not installed; install it with: pip install 'ofa-nas[{extra}]'")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of a sentence about an unknown ``word``: the nearest choice if there is one, and all choices."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(known)}"
