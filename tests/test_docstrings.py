"""The reference is complete: every public name says what it is given, in which shapes, and which errors it raises."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

PAGES = Path(__file__).parents[1] / "docs" / "reference"
ARRAYS = ("Tensor", "Floats", "Integers", "Rows", "ndarray", "Array")
"""Annotations of values that have a shape."""

_SHAPE = re.compile(r"\[\w[\w, .]*\]|\bshapes?\b|scalar|_[A-Z]{1,6}\b|each [a-z]+\b|as (of )?``")
_SAID = r"(^|[\s`,])\*{{0,2}}{}(`|:|(, \w+)+:| \(.*\):)"
"""A parameter in a list of arguments, alone or with others, or in a sentence."""
_REFERENCE = re.compile(r"(?:as|those) (?:of |for |in )?``(\w[\w.]*)``")


def documented() -> list[str]:
    """The names that the pages of the reference have entries of."""
    return re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in sorted(PAGES.glob("*.md"))), re.MULTILINE)


def found(name: str) -> Any:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return value
    raise LookupError(name)


class Documented:
    """A function, method or class, and what its docstring says.

    Args:
        name: under which the reference has it.
        value: itself.
        owner: the class of a method.
    """

    def __init__(self, name: str, value: Any, owner: type | None = None) -> None:
        self.name, self._value, self._owner = name, value, owner

    @property
    def _own(self) -> str:
        """Its own docstring, or that of the method which it overrides."""
        return inspect.getdoc(self._value if self._owner is None else getattr(self._owner, self.name.split(".")[-1])) or ""

    @cached_property
    def text(self) -> str:
        """Its docstring, with those of its class, of base classes and of functions that it refers to for arguments and errors."""
        own = self._own
        texts = [own]
        bases = self._value.__mro__[1:-1] if inspect.isclass(self._value) else ()
        texts += [
            inspect.getdoc(base) or "" for base in bases if base.__module__.split(".")[0] in ("ofa", "search", "devices", "latency_tables")
        ]
        if self._owner is not None:
            texts += [inspect.getdoc(self._owner) or ""] + [
                inspect.getdoc(getattr(base, self._value.__name__, None)) or "" for base in self._owner.__mro__
            ]
        texts += [inspect.getdoc(referred) or "" for referred in map(self._referred, _REFERENCE.findall(own)) if referred is not None]
        return "\n".join(texts)

    def _referred(self, name: str) -> Any:
        for place in (self._owner, inspect.getmodule(self._value)):
            for part in name.split("."):
                place = getattr(place, part, None)
            if place is not None:
                return place
        package = self.name.split(".")[0]
        try:
            return found(f"{package}.{name}" if name.isidentifier() else name)
        except (LookupError, TypeError, AttributeError):
            return None

    def faults(self) -> Iterator[str]:
        """What is missing."""
        if not self._own:
            yield "has no docstring"
            return
        named = self._parameters()
        for parameter in named.values():
            # One argument alone may be explained by the sentence itself.
            if len(named) > 1 and not re.search(_SAID.format(parameter.name), self.text, re.MULTILINE):
                yield f"does not say what {parameter.name} is"
            if self._is_array(parameter.annotation) and not _SHAPE.search(f"{parameter.name} {self.text}"):
                yield f"does not say which shape {parameter.name} has"
        if self._is_array(getattr(self._value, "__annotations__", {}).get("return", "")) and not _SHAPE.search(self.text):
            yield "does not say which shape its result has"
        for error in self._raised() - set(re.findall(r"\w+", self.text)):
            yield f"does not say when it raises {error}"

    def _parameters(self) -> dict[str, inspect.Parameter]:
        if inspect.isclass(self._value) and self._is_made_elsewhere:
            return {}
        parameters = inspect.signature(self._value).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in ("self", "cls") and not name.startswith("_")}

    @property
    def _is_made_elsewhere(self) -> bool:
        """Whether users raise it, implement it, or get it from a function, but do not construct it."""
        return issubclass(self._value, Exception) or getattr(self._value, "_is_protocol", False) or "made by ``" in self._own

    @staticmethod
    def _is_array(annotation: object) -> bool:
        return any(re.search(rf"\b{name}\b", str(annotation)) for name in ARRAYS) and "Callable" not in str(annotation)

    def _raised(self) -> set[str]:
        if inspect.isclass(self._value):
            return set()
        tree = ast.parse(textwrap.dedent(inspect.getsource(self._value)))
        raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
        names = [ast.unparse(error.func if isinstance(error, ast.Call) else error).split(".")[-1] for error in raised]
        return {name for name in names if name[:1].isupper() and name not in ("NotImplementedError", "SystemExit")}


def entries() -> Iterator[Documented]:
    seen: set[int] = set()
    for name in documented():
        value = found(name)
        if id(value) in seen or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        seen.add(id(value))
        yield Documented(name, value)
        if inspect.isclass(value):
            for method, member in _members(value):
                yield Documented(f"{name}.{method}", member, value)


def _members(value: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in vars(value).items():
        member = member.fget if isinstance(member, property) else getattr(member, "func", getattr(member, "__func__", member))
        if not name.startswith("_") and inspect.isfunction(member):
            yield name, member


@pytest.mark.parametrize("entry", list(entries()), ids=lambda entry: entry.name)
def test_a_public_name_says_what_it_is_given_in_which_shapes_and_what_it_raises(entry: Documented) -> None:
    assert list(entry.faults()) == []


def _undocumented(count: int, x_N: list[int]) -> int:
    """Add."""
    if count < 0:
        raise ValueError(count)
    return count + sum(x_N)


def _plain(first: inspect.Signature) -> None:
    pass


def test_faults_are_found() -> None:
    assert list(Documented("x", _undocumented).faults()) == [
        "does not say what count is",
        "does not say what x_N is",
        "does not say when it raises ValueError",
    ]
    assert list(Documented("x", _plain).faults()) == ["has no docstring"]
