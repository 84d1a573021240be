"""Conversion between dataclasses and JSON values of files, which are checked when a file is read.

Unknown keys are ignored, as they come from later versions. A change that an older reader would misunderstand must therefore increase the
file's schema number. A field whose default and value are None is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ofa.errors import OfaError, SchemaError

__all__ = ["parse", "to_json"]

T = TypeVar("T")
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_hints = lru_cache(get_type_hints)


def to_json(value: Any) -> Any:
    """Convert dataclasses, mappings, lists and tuples, nested in any way, to JSON values; a ``to_json`` method of a value is used."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
        return {name: to_json(own) for name, (own, default) in named.items() if own is not None or default is not None}
    if isinstance(value, Mapping):
        return {key: to_json(own) for key, own in value.items()}
    return [to_json(own) for own in value] if isinstance(value, list | tuple) else value


def parse(kind: type[T], value: Any) -> T:
    """Rebuild a value that ``to_json`` wrote.

    Args:
        kind: a dataclass, or another type that its fields may have.
        value: JSON values.

    Raises:
        SchemaError: a key is missing, or a value has the wrong type or is NaN or infinite.
    """
    parsed: T = _parse(kind, value, "")
    return parsed


def _parse(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if NoneType in get_args(hint):
        rest = [kind for kind in get_args(hint) if kind is not NoneType]
        return None if value is None else _parse(rest[0], value, where) if len(rest) == 1 else _parse_any(rest, value, where)
    if hint in _KINDS:
        return _parse_plain(hint, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(where, "a list", value)
        return tuple(_parse(get_args(hint)[0], own, f"{where}[{number}]") for number, own in enumerate(value))
    if not isinstance(hint, type) and get_origin(hint) is not Mapping:
        return _parse_any(get_args(hint), value, where)
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object", value)
    if get_origin(hint) is Mapping:
        return {str(key): _parse(get_args(hint)[1], own, _within(where, key)) for key, own in value.items()}
    if hasattr(hint, "from_json"):
        try:
            return hint.from_json(value)
        except (OfaError, KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"'{where}' is not valid: {error}") from error
    hints, read = _hints(hint), {}
    for field in fields(hint):
        if not field.init:  # computed from the other fields
            continue
        if field.name in value:
            read[field.name] = _parse(hints[field.name], value[field.name], _within(where, field.name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise SchemaError(f"'{_within(where, field.name)}' is missing")
    return hint(**read)


def _parse_any(hints: Any, value: Any, where: str) -> Any:
    for hint in hints:
        if hint in _KINDS and isinstance(value, hint):
            return _parse_plain(hint, value, where)
    raise _wrong(where, " or ".join(_KINDS[hint] for hint in hints), value)


def _parse_plain(hint: Any, value: Any, where: str) -> Any:
    given = float(value) if hint is float and isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(given, hint) or (isinstance(given, bool) and hint is not bool) or (hint is float and not math.isfinite(given)):
        raise _wrong(where, _KINDS[hint], value)
    return given


def _within(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _wrong(where: str, rule: str, value: object) -> SchemaError:
    return SchemaError(f"'{where}' must be {rule}, but is {value!r}" if where else f"it must be {rule}, but is {value!r}")
