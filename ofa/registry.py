"""Registries: what may be named, by this project, by a user's own code, and by installed packages through their entry points.

A file may name what is registered; nothing is imported because of a text that a file holds. ``import_attribute`` is the one door to a
user's code, and does not open for a ``FromFile``.
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
"""Keys of a recipe that have an option of their own."""


class FromFile(str):
    """A text that a file says and no user has typed: as good as any other, but what it names is not imported.

    Attributes:
        key: where it stands in its file, such as ``optimizer.name``.
    """

    key: str

    def __new__(cls, text: str, key: str = "") -> FromFile:
        made = super().__new__(cls, text)
        made.key = key
        return made


def from_file(value: Any, key: str = "") -> Any:
    """A parsed TOML or JSON value with each text of it as a ``FromFile``; ``key`` is where it stands."""
    if isinstance(value, str):
        return FromFile(value, key)
    if isinstance(value, Mapping):
        return {name: from_file(item, f"{key}.{name}" if key else name) for name, item in value.items()}
    return [from_file(item, key) for item in value] if isinstance(value, list) else value


class Registry(Generic[T]):
    """Entries by name.

    Args:
        kind: what an entry is, for messages, such as ``runtime``.
        group: the entry-point group by which installed packages add entries, such as ``ofa.runtimes``. An entry point is imported when
            it is asked for by name, and not before. None: there is no such group.
        error: class of the errors.
        entries: those that come with the project.
        lazy: those that come with the project and are imported when they are asked for, as ``module:attribute``.
        valid: whether an object can be an entry.
        must_be: words for what ``valid`` asks, such as ``a class``.
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
        """Names of the entries that come with the project."""

    def register(self, name: str, entry: T) -> None:
        """Add an entry for as long as this process lasts.

        Raises:
            OfaError: of the registry's class: the name is taken, or the object cannot be an entry.
        """
        if name in self:
            raise self._error(
                f"a {self._kind} must have a name of its own, but '{name}' is registered already and {entry!r} was to be; "
                "register it under another name"
            )
        self._entries[name] = self._checked(name, entry, "")

    @contextmanager
    def registered(self, name: str, entry: T) -> Iterator[None]:
        """An entry for the time of a ``with`` block; errors as ``register``."""
        self.register(name, entry)
        try:
            yield
        finally:
            del self._entries[name]

    def get(self, name: str) -> T:
        """The entry of a name.

        Raises:
            OfaError: of the registry's class: there is none (the message names the nearest), or the package that has it cannot be imported.
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
        except Exception as error:  # a package may fail in any way
            raise self._error(
                f"{self._kind} '{name}' of package {_package(point)} must be importable, but {point.value} is not: {reason_of(error)}; "
                "install that package anew, or remove it"
            ) from error
        self._entries[name] = self._checked(name, entry, f" of package {_package(point)}")
        return self._entries[name]

    def find(self, text: str) -> T:
        """The entry that a user typed: a name, or ``module:attribute``, which is imported.

        Raises:
            TrustError: a file says ``module:attribute``.
            OfaError: of the registry's class: there is none, it cannot be imported, or is no entry.
        """
        if text in self or ":" not in text:
            return self.get(text)
        try:
            entry: T = import_attribute(text)
        except TrustError:
            raise
        except Exception as error:  # a module of the user's may fail in any way
            raise self._error(
                f"{self._kind} '{text}' must be importable as module:attribute, but: {reason_of(error)}; check both names, and that the "
                "module is installed where it is used"
            ) from error
        return self._checked(text, entry, "")

    def name_of(self, entry: T) -> str | None:
        """The name of an entry that was registered or asked for; None if it has none."""
        return next((name for name, each in self._entries.items() if each is entry), None)

    def names(self) -> tuple[str, ...]:
        """All names, those of the project first, in the order of registration; entry points are listed and not imported.

        Raises:
            OfaError: of the registry's class: two packages have an entry of one name.
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
        from importlib.metadata import entry_points  # takes a tenth of a second, which most processes need not spend

        for point in sorted(entry_points(group=self._group)):
            other = points.get(point.name)
            if other is not None or point.name in self.own:
                owner = "ofa" if other is None else f"package {_package(other)}"
                raise self._error(
                    f"a {self._kind} must have a name of its own, but '{point.name}' is one of {owner} and one of package "
                    f"{_package(point)}; remove one of the two"
                )
            points[point.name] = point
        return points

    def _checked(self, name: str, entry: T, origin: str) -> T:
        if not self._valid(entry):
            raise self._error(f"a {self._kind} must be {self._must_be}, but '{name}'{origin} is {entry!r}; register another object")
        return entry


def import_attribute(text: str) -> Any:
    """What ``module:attribute`` names; importing the module raises what it raises.

    Raises:
        TrustError: a file says so.
    """
    if isinstance(text, FromFile):
        option = f"--{text.key.replace('_', '-')} " if text.key in _OPTIONS else f"--set {text.key}="
        raise TrustError(
            f"nothing is imported because a file says so, but a file's {text.key} is '{text}'; type it yourself, {option}{text}, or let "
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
    """Let ``module:attribute`` name modules of a folder, if nothing that is installed is called so.

    Only from then on is the folder searched at all: what lies there by chance is never imported in place of something that is missing.
    """
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)


def _package(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else point.dist.name
