"""Conversion between TOML tables and arguments of dataclasses and functions, with errors that name the key."""

from __future__ import annotations

import inspect
import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import reduce
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ofa.errors import OfaError, RecipeError, nearest
from ofa.resolution import Resolution, parse_resolution, resolution_to_json
from ofa.space import Gene

__all__ = [
    "KINDS",
    "LARGEST_BATCH",
    "MOST_EPOCHS",
    "MOST_STEPS",
    "build",
    "check_range",
    "line_of",
    "table_of",
    "to_toml",
    "toml_lines",
    "without_none",
]

T = TypeVar("T")
Path = tuple[str | int, ...]
_ARRAY, _TABLE, _PAIR = (re.compile(pattern) for pattern in (r"\s*\[\[(.+?)\]\]", r"\s*\[(.+?)\]", r"\s*([\w.\-'\" ]+?)\s*=(.*)"))
KINDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", Resolution: "a resolution"}

LARGEST_BATCH, MOST_EPOCHS, MOST_STEPS = 2**16, 10**6, 2**63 - 1
"""Limits far above real training settings: a typing error or a malicious recipe would otherwise take all memory or never end."""


def check_range(where: str, value: float, low: float, high: float = math.inf, *, most: float = math.inf) -> None:
    """Raise RecipeError unless ``low <= value <= high`` and ``value <= most``, a limit that only typing errors exceed."""
    if not low <= value <= min(high, most):
        rule = f"at most {most}" if value > most else f"at least {low}" if high == math.inf else f"in {low}..{high}"
        raise RecipeError(f"{where} must be {rule}, but is {value}; change it in the recipe", key=where.rpartition(".")[2])


def build(factory: Callable[..., T], table: Mapping[str, Any], where: str, *, path: Path = (), **given: Any) -> T:
    """Call ``factory``, whose arguments are annotated, with the keys of a table.

    Args:
        factory: a dataclass or a function.
        table: values as read from TOML; lists become tuples, and tables become the annotated dataclasses.
        where: name of the table in errors.
        path: path of the table in the document; errors carry the path of the key that they are about.
        given: arguments that do not come from the table.

    Returns:
        The result of ``factory``.

    Raises:
        RecipeError: unknown or missing keys, or values of another type.
    """
    parameters = {name: p for name, p in inspect.signature(factory).parameters.items() if name not in given}
    for key in table:
        if key not in parameters:
            raise _at((*path, key), f"{where} has no key '{key}' (value {table[key]!r}); {nearest(key, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in table:
            raise RecipeError(f"{where} must have the key '{name}', but has {', '.join(table) or 'none'}; add it")
    hints = get_type_hints(factory)
    values = {}
    for key, value in table.items():
        try:
            values[key] = _convert(value, hints[key], f"{where}.{key}")
        except RecipeError as error:
            error.path = (*path, key, *(error.path or ()))
            raise
        except OfaError as error:
            raise _at((*path, key), f"{where}: {error}") from error
    try:
        return factory(**values, **given)
    except OfaError as error:
        blamed = (*path, error.key) if error.key is not None and error.key in table else None
        if not isinstance(error, RecipeError):
            raise _at(blamed, f"{where}: {error}") from error
        error.path = error.path or blamed
        raise


def _at(path: Path | None, message: str) -> RecipeError:
    error = RecipeError(message)
    error.path = path
    return error


def line_of(text: str, path: Path) -> int | None:
    """The line number, from 1, of a key of a TOML document; None if the key is not there.

    Args:
        text: the document.
        path: names of tables and keys, and numbers of tables within an array, such as ``("phases", 1, "epochs")``.
    """
    prefix: Path = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _ARRAY.match(line):
            name = header[1].strip()
            counts[name] = counts.get(name, -1) + 1
            prefix = (*_keys(name), counts[name])
        elif header := _TABLE.match(line):
            prefix = _keys(header[1])
        elif pair := _PAIR.match(line):
            found = (*prefix, *_keys(pair[1]))
            # The rest of the path must be in an inline table on the same line.
            rest = [key for key in path[len(found) :] if isinstance(key, str)]
            if path[: len(found)] == found and all(re.search(rf"\b{re.escape(key)}\b", pair[2]) for key in rest):
                return number
    return None


def _keys(dotted: str) -> Path:
    return tuple(part.strip().strip("'\"") for part in dotted.split("."))


def _convert(value: Any, hint: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        return _convert_tuple(value, get_args(hint), where)
    if hint == Resolution:
        return parse_resolution(value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise RecipeError(f"{where} must be one of its words, but is {value!r}; {nearest(str(value), get_args(hint))}")
        return value
    if NoneType in get_args(hint):  # TOML has no null, but JSON has
        return None if value is None else _convert(value, without_none(hint), where)
    if get_origin(hint) is not None or hint not in KINDS:
        if is_dataclass(hint) and isinstance(hint, type):
            return build(hint, table_of(value, where), where)
        whole, real = get_args(hint)  # the only union is int | float
        return _convert(value, whole if isinstance(value, int) else real, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"{where} must be {KINDS[hint]}, but is {value!r}; correct it in the recipe")
    return value


def without_none(hint: Any) -> Any:
    """A union type without None."""
    return reduce(operator.or_, [kind for kind in get_args(hint) if kind is not NoneType])


def _convert_tuple(value: Any, items: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if items[0] is Gene:
        genes = table_of(value, where).items()
        return tuple(Gene(name, _convert_tuple(values, (int | float, ...), f"{where}.{name}")) for name, values in genes)
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{where} must be a list, but is {value!r}; put it in brackets")
    hints = [items[0]] * len(value) if items[-1] is ... else list(items)
    if len(hints) != len(value):
        raise RecipeError(f"{where} must have {len(hints)} values, but has {len(value)}: {list(value)}; give each of them")
    return tuple(_convert(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, hints, strict=True)))


def table_of(value: Any, where: str) -> Mapping[str, Any]:
    """The value if it is a table; otherwise raises RecipeError."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a table such as {{key = value}}, but is {value!r}; write it so")
    return value


def toml_lines(instance: Any, leave_out: str = "") -> list[str]:
    """A line of TOML for each field of a dataclass, such that ``build`` reads it back; one field may be left out."""
    hints = get_type_hints(type(instance))
    return [
        f"{field.name} = {to_toml(getattr(instance, field.name), items=get_args(hints[field.name])[:1])}"
        for field in fields(instance)
        if field.name != leave_out and getattr(instance, field.name) is not None
    ]


def to_toml(value: Any, *, items: tuple[Any, ...] = ()) -> str:
    """A value of a field as TOML; ``items`` is the type of a tuple's items."""
    if items == (Gene,):
        return "{" + ", ".join(f"{gene.name} = {to_toml(gene.values)}" for gene in value) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if items == (Resolution,):
        value = tuple(map(resolution_to_json, value))
    if isinstance(value, tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if is_dataclass(value):
        return "{" + ", ".join(toml_lines(value)) + "}"
    return repr(value)
