"""The reference of recipes: key, type, default and meaning, read from signatures and docstrings of the code."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ofa.data import Augmentation
from ofa.errors import RecipeError
from ofa.space import Gene
from ofa.training.methods import METHODS
from ofa.training.optimizer import OPTIMIZERS, Optimizer
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.start import Start
from ofa.training.toml import KINDS, to_toml, without_none

__all__ = ["KeyDoc", "Table", "argument_docs", "recipe_reference", "reference_markdown", "tables_of"]

_SECTION = re.compile(r"^(Attributes|Args|Raises|Returns|Yields):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.+(?:\n(?: {8}.*|))*)", re.MULTILINE)
_REQUIRED = "required"
_WORDS = {"a whole number": "whole numbers", "a number": "numbers", "a string": "strings", "a resolution": "resolutions"}


@dataclass(frozen=True, kw_only=True)
class KeyDoc:
    """One key of a recipe.

    Attributes:
        table: name of its table; empty at the top level.
        key: name of the key.
        type: type of its value, in words.
        default: default value as TOML; ``required`` if it has none.
        meaning: description of the key.
    """

    table: str
    key: str
    type: str
    default: str
    meaning: str

    @property
    def path(self) -> str:
        """The dotted key as ``--set`` takes it; for keys of a phase, ``--set`` also needs the phase's name."""
        return f"{self.table}.{self.key}" if self.table else self.key


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a recipe.

    Attributes:
        name: its name in TOML; empty at the top level.
        meaning: description of the table.
        keys: all its keys.
    """

    name: str
    meaning: str
    keys: tuple[KeyDoc, ...]


def tables_of() -> tuple[Table, ...]:
    """All tables of a recipe, the top level first."""
    optimizers = [("optimizer", OPTIMIZERS.get(name)) for name in sorted(OPTIMIZERS.own, reverse=True)]
    makers: list[tuple[str, Callable[..., Any]]] = [
        ("", Recipe),
        ("phases", Phase),
        *METHODS.items(),
        *optimizers,
        ("augmentation", Augmentation),
        ("start", Start),
    ]
    return tuple(_table(name, maker) for name, maker in makers)


def recipe_reference(key: str | None = None) -> tuple[KeyDoc, ...]:
    """Look up keys of a recipe.

    Args:
        key: a table (``augmentation``), a key (``batch_size``), or both (``phases.sandwich``, also with a phase's name between); None is
            all.

    Returns:
        The matching keys.

    Raises:
        RecipeError: no key matches.
    """
    every = [doc for table in tables_of() for doc in table.keys]
    if key is None:
        return tuple(every)
    head, _, last = key.rpartition(".")
    wanted = f"{head.partition('.')[0]}.{last}" if head else key
    found = [doc for doc in every if wanted in (doc.path, doc.key, doc.table)]
    if not found:
        close = difflib.get_close_matches(key, [name for doc in every for name in (doc.path, doc.key, doc.table)], n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise RecipeError(f"'{key}' must be a built-in recipe, or a key or a table of recipes; {hint}list all with: ofa recipes")
    return tuple(found)


def argument_docs(documented: Callable[..., Any]) -> dict[str, str]:
    """The description of each argument or attribute, from the sections ``Args`` and ``Attributes`` of a docstring."""
    parts = _SECTION.split(inspect.getdoc(documented) or "")
    found: dict[str, str] = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title in ("Args", "Attributes"):
            for names, text in _ENTRY.findall(body):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def _table(name: str, maker: Callable[..., Any]) -> Table:
    docs, hints = argument_docs(maker), get_type_hints(maker)
    keys = []
    for key, parameter in inspect.signature(maker).parameters.items():
        if key == "space" and name in METHODS:
            continue  # a key of the recipe itself
        value = _default(maker, key, parameter)
        keys.append(
            KeyDoc(
                table=name,
                key=key,
                type=_type(hints[key]),
                default=_REQUIRED if value is MISSING else _shown(value, items=get_args(hints[key])[:1]),
                meaning=docs.get(key, ""),
            )
        )
    meaning = (inspect.getdoc(maker) or "").split("\n\n")[0]
    return Table(name=name, meaning=" ".join(meaning.split()), keys=tuple(keys))


def _default(maker: Callable[..., Any], key: str, parameter: inspect.Parameter) -> Any:
    """The default of a key; MISSING if it has none."""
    if isinstance(maker, type) and issubclass(maker, Optimizer):
        return getattr(maker(), key)  # the default of ``name`` depends on the class
    if isinstance(maker, type) and is_dataclass(maker):
        field: Field[Any] = next(field for field in fields(maker) if field.name == key)
        if field.default_factory is not MISSING:
            return field.default_factory()
        return field.default
    return MISSING if parameter.default is parameter.empty else parameter.default


def _shown(value: Any, *, items: tuple[Any, ...]) -> str:
    if value is None:
        return "left out"
    if isinstance(value, Optimizer):
        return to_toml(value.name)
    return "{}" if is_dataclass(value) else to_toml(value, items=items)


def _type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{word}"' for word in get_args(hint))
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        if first is Gene:
            return "a table of lists of values, by gene"
        if is_dataclass(first):
            return "a list of tables, or the table of a method"
        words = _WORDS[_type(first)]
        return f"a list of {words}" if others[-1:] == [...] else f"a list of {len(others) + 1} {words}"
    if NoneType in get_args(hint):
        return _type(without_none(hint))
    return KINDS.get(hint, "a table")


def reference_markdown(recipes: Mapping[str, str]) -> str:
    """The documentation page of all keys.

    Args:
        recipes: description of each recipe that comes with the project, by name.

    Returns:
        Markdown.
    """
    lines = [
        "# Recipes",
        "",
        "A recipe is a TOML file. One of `[[phases]]`, or the table of a method that makes them, says how the supernet learns. Any key can",
        "be changed on the command line: `--set batch_size=32`, `--set augmentation.flip=true`, `--set phases.full.epochs=3`,",
        "`--set progressive_shrinking.epochs=60`. `make pages` writes this page from the code; `ofa recipes KEY` shows a part of it.",
        "",
        "| built-in recipe | |",
        "| --- | --- |",
        *(f"| `{name}` | {_cell(text)} |" for name, text in recipes.items()),
    ]
    for table in tables_of():
        lines += [
            "",
            f"## {_heading(table)}",
            "",
            table.meaning,
            "",
            "| key | type | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += [f"| `{doc.key}` | {_cell(doc.type)} | `{doc.default}` | {_cell(doc.meaning)} |" for doc in table.keys]
    return "\n".join(lines) + "\n"


def _heading(table: Table) -> str:
    if table.name == "optimizer":
        return f"`[optimizer]` with `name = {table.keys[0].default}`"
    return f"`[[{table.name}]]`" if table.name == "phases" else f"`[{table.name}]`" if table.name else "The recipe itself"


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
