"""Registries of named entries, from this project, from a user's code, and from installed packages by entry points.

A file may name registered entries, but a text from a file never causes an import. ``import_attribute`` is the only function that imports
user code, and it refuses a ``FromFile``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ofa.errors import OfaError, TrustError, nearest
from ofa.reasons import reason_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["FromFile", "Registry", "from_file", "import_also_from", "import_attribute"]

T = TypeVar("T")
_FOLDERS: list[str] = []
_OPTIONS = ("data", "test_data")
"""Keys of a recipe with a command-line option of the same name."""


class FromFile(str):
    """A string that was read from a file, not typed by the user; ``import_attribute`` refuses it.

    Attributes:
        key: its key in the file, such as ``optimizer.name``.
    """

    key: str

    def __new__(cls, text: str, key: str = "") -> FromFile:
        made = super().__new__(cls, text)
        made.key = key
        return made


def from_file(value: Any, key: str = "") -> Any:
    """Convert all strings of a parsed TOML or JSON value to ``FromFile``; ``key`` is the key of the value itself."""
    if isinstance(value, str):
        return FromFile(value, key)
    if isinstance(value, Mapping):
        return {name: from_file(item, f"{key}.{name}" if key else name) for name, item in value.items()}
    return [from_file(item, key) for item in value] if isinstance(value, list) else value


class Registry(Generic[T]):
    """Entries by name.

    Args:
        kind: what an entry is, for messages, such as ``runtime``.
        group: entry-point group by which installed packages add entries, such as ``ofa.runtimes``; None for no group. An entry point is
            imported only when it is requested by name.
        error: class of the errors raised.
        entries: built-in entries.
        lazy: built-in entries as ``module:attribute``, imported when requested.
        valid: predicate that objects must satisfy to be entries.
        must_be: the requirement of ``valid`` in words, such as ``a class``.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str | None = None,
        error: type[OfaError],
        entries: Mapping[str, T] | None = None,
        lazy: Mapping[str, str] | None = None,
        valid: Callable[[Any], bool] = callable,
        must_be: str = "a class or function",
    ) -> None:
        self._kind, self._group, self._error, self._valid, self._must_be = kind, group, error, valid, must_be
        self._entries, self._lazy = dict(entries or {}), dict(lazy or {})
        self.own = (*self._entries, *self._lazy)
        """Names of the built-in entries."""

    def register(self, name: str, entry: T) -> None:
        """Add an entry for the lifetime of this process.

        Args:
            name: a new name.
            entry: the object.

        Raises:
            OfaError: of the class ``error``: the name is taken, or the object is not valid.
        """
        if name in self:
            raise self._error(
                f"a {self._kind} must have a name of its own, but '{name}' is already registered; register {entry!r} under another name"
            )
        self._entries[name] = self._checked(name, entry, "")

    @contextmanager
    def registered(self, name: str, entry: T) -> Iterator[None]:
        """Register an entry inside a ``with`` block.

        Raises:
            OfaError: as in ``register``.
        """
        self.register(name, entry)
        try:
            yield
        finally:
            del self._entries[name]

    def get(self, name: str) -> T:
        """The entry with a name.

        Raises:
            OfaError: of the class ``error``: there is no such entry (the message names the closest), or its package cannot be imported.
        """
        if name in self._entries:
            return self._entries[name]
        if name in self._lazy:
            return cast(T, import_attribute(self._lazy[name]))
        point = self._points.get(name)
        if point is None:
            raise self._error(f"there is no {self._kind} '{name}'; {nearest(name, self.names())}")
        try:
            entry = point.load()
        except Exception as error:  # an import may fail in any way
            raise self._error(
                f"{self._kind} '{name}' of package {_package(point)} must be importable, but {point.value} is not: {reason_of(error)}; "
                "reinstall that package, or remove it"
            ) from error
        self._entries[name] = self._checked(name, entry, f" of package {_package(point)}")
        return self._entries[name]

    def find(self, text: str) -> T:
        """The entry that a user named.

        Args:
            text: a registered name, or ``module:attribute``, which is imported.

        Raises:
            TrustError: ``module:attribute`` comes from a file.
            OfaError: of the class ``error``: there is no such entry, it cannot be imported, or the object is not valid.
        """
        if text in self or ":" not in text:
            return self.get(text)
        try:
            entry: T = import_attribute(text)
        except TrustError:
            raise
        except Exception as error:  # user code may fail in any way
            raise self._error(
                f"{self._kind} '{text}' must be importable as module:attribute, but: {reason_of(error)}; check both names, and that the "
                "module is installed in this environment"
            ) from error
        return self._checked(text, entry, "")

    def name_of(self, entry: T) -> str | None:
        """The name of an entry that is in ``entries``, registered, or loaded from an entry point; None for other objects."""
        return next((name for name, each in self._entries.items() if each is entry), None)

    def names(self) -> tuple[str, ...]:
        """All names: built-in ones, then registered ones in order, then entry points, which are not imported.

        Raises:
            OfaError: of the class ``error``: two packages provide an entry with the same name.
        """
        return tuple(dict.fromkeys([*self._lazy, *self._entries, *self._points]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._lazy or name in self._points

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        points: dict[str, EntryPoint] = {}
        if self._group is None:
            return points
        from importlib.metadata import entry_points  # imported here because it takes 0.1 s, and most processes do not need it

        for point in sorted(entry_points(group=self._group)):
            other = points.get(point.name)
            if other is not None or point.name in self.own:
                owner = "ofa" if other is None else f"package {_package(other)}"
                raise self._error(
                    f"a {self._kind} must have a name of its own, but '{point.name}' comes both from {owner} and from package "
                    f"{_package(point)}; remove one of the two"
                )
            points[point.name] = point
        return points

    def _checked(self, name: str, entry: T, origin: str) -> T:
        if not self._valid(entry):
            raise self._error(f"a {self._kind} must be {self._must_be}, but '{name}'{origin} is {entry!r}; register another object")
        return entry


def import_attribute(text: str) -> Any:
    """Import the object that ``module:attribute`` names; exceptions of the import pass through.

    Raises:
        TrustError: ``text`` comes from a file.
    """
    if isinstance(text, FromFile):
        option = f"--{text.key.replace('_', '-')} " if text.key in _OPTIONS else f"--set {text.key}="
        raise TrustError(
            f"code is imported only on the user's request, but a file's {text.key} is '{text}'; type it yourself, {option}{text}, or let "
            "the command trust the file: --trust"
        )
    module, _, attribute = text.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] or not (more := [each for each in _FOLDERS if each not in sys.path]):
            raise
        sys.path += more
        found = importlib.import_module(module)
    return reduce(getattr, attribute.split("."), cast(Any, found))


def import_also_from(folder: str) -> None:
    """Let ``module:attribute`` find modules in a folder, if no installed module has the name.

    The folder joins ``sys.path`` only when such a module is requested. So files that happen to lie there never stand in for a missing
    package.
    """
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)


def _package(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else point.dist.name
