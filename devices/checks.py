"""Reads and checks device files: dataclasses of strings, numbers and booleans."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ofa.errors import DeviceError, nearest

__all__ = ["called", "check_choice", "check_fields", "check_keys", "check_range", "read_table"]

T = TypeVar("T")

_KINDS: Mapping[str, type] = {"bool": bool, "float": float, "int": int, "str": str}
_CALLED = {bool: "true or false", int: "a whole number", float: "a number with a decimal point", str: "a text"}


def called(kind: type) -> str:
    """Words for a type."""
    return _CALLED[kind]


def check_fields(value: Any, where: str) -> None:
    """Check the types of a dataclass's string, number and boolean fields.

    Files do not distinguish 20 from 20.0, or tuples from lists: an integer becomes a float if the field is declared so, and a list a tuple.

    Args:
        value: an instance of a frozen dataclass.
        where: words for it in messages.

    Raises:
        DeviceError: a field has another type.
    """
    for field in dataclasses.fields(value):
        kind = _KINDS.get(str(field.type))
        given = getattr(value, field.name)
        if kind is float and type(given) is int:
            object.__setattr__(value, field.name, float(given))
        elif isinstance(given, list) and str(field.type).startswith("tuple"):
            object.__setattr__(value, field.name, tuple(given))
        elif kind is not None and type(given) is not kind:  # isinstance would accept a bool as an int
            raise DeviceError(f"'{field.name}' of {where} must be {called(kind)}, but is {given!r}; correct it")


def check_choice(value: Any, key: str, choices: Iterable[str], where: str) -> None:
    """Raise DeviceError if a field is not among the known values; the message names the nearest."""
    given = getattr(value, key)
    if given not in choices:
        raise DeviceError(f"'{key}' of {where} must be a known one, but is '{given}'; {nearest(given, choices)}")


def check_range(value: Any, key: str, where: str, least: float, most: float = math.inf) -> None:
    """Raise DeviceError if a field is outside ``least`` .. ``most``."""
    given = getattr(value, key)
    if not least <= given <= most:  # also true for NaN
        ends = f"at least {least:g}" if most == math.inf else f"within {least:g} and {most:g}"
        raise DeviceError(f"'{key}' of {where} must be {ends}, but is {given:g}; correct it")


def check_keys(table: Mapping[str, Any], known: Iterable[str], required: Iterable[str], where: str) -> None:
    """Raise DeviceError if a table has an unknown key, or lacks a required one."""
    for key in table:
        if key not in known:
            hint = nearest(key, known) if known else "it has none"
            raise DeviceError(f"{where} must hold only known keys, but has '{key}'; {hint}")
    for key in required:
        if key not in table:
            raise DeviceError(f"{where} must name its {key}, but has no key '{key}'; add a line such as: {key} = \"...\"")


def read_table(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of a dataclass from a table with its fields.

    Raises:
        DeviceError: unknown or missing keys, or invalid values.
    """
    fields = [field for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
    missing = dataclasses.MISSING
    required = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    check_keys(table, [field.name for field in fields], required, where)
    return kind(**table)
