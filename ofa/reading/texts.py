"""Safe parsing of JSON, TOML and YAML.

Values are nested at most ``DEEPEST`` levels. Integers are below 2^128 in magnitude. Floats are finite, except in TOML, where inf means no
limit. Texts are valid Unicode. Keys are unique.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from ofa.errors import FileError, OfaError
from ofa.reading.files import read_bytes, read_text
from ofa.reading.limits import (
    DEEPEST,
    LARGEST_JSON,
    LARGEST_NUMBER,
    LARGEST_TOML,
    LARGEST_YAML,
    LONGEST_SCALAR,
    MOST_EVENTS,
    UnfitError,
)
from ofa.seal import SEAL_KEY, check_seal, is_seal

__all__ = ["parse_json", "parse_toml", "parse_yaml", "read_json", "read_toml", "read_yaml"]

_AGAIN = "write it again with the command that made it"
_SUSPICIOUS = re.compile(r"\d{20}|\d[eE]\+?\d{3}|\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""Pattern that occurs in all JSON with forbidden numbers or texts; only then are all values checked."""

# Strings and comments of TOML; they are removed so that only structural brackets and dots remain.
_TOML_TEXTS = re.compile(
    r'"""(?:\\.|[^\\])*?"""|' + r"'''.*?'''|" + r'"(?:\\[^\n]|[^"\\\n])*"|' + r"'[^'\n]*'|#[^\n]*",
    re.DOTALL,
)


# -- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, *, what: str, remedy: str = _AGAIN, error: type[OfaError] = FileError, infinite: bool = False) -> Any:
    """Parse JSON.

    Args:
        text: the document; bytes are UTF-8.
        what: name of the document in messages.
        remedy: next step in messages.
        error: class of all errors.
        infinite: whether Infinity and NaN are allowed, as Python writes them, such as for a loss that is not known yet.

    Raises:
        OfaError: of the class ``error``: the text is not JSON, too large, or nested deeper than ``DEEPEST``; or it has a duplicate key, a
            number that is not finite, an integer of 2^128 or more, or invalid Unicode.
    """
    try:
        if len(text) > LARGEST_JSON:
            raise UnfitError(f"it has {len(text)} characters, more than {LARGEST_JSON}")
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = (_INFINITE if infinite else _DECODER).decode(text)
        if text.count("[") + text.count("{") > DEEPEST or _SUSPICIOUS.search(text):
            _check(value, finite=not infinite)
    except (UnfitError, ValueError, RecursionError) as problem:
        raise error(f"{what} must be JSON, but {_reason(problem)}; {remedy}") from problem
    return value


def read_json(path: str | os.PathLike[str], *, sealed: bool = False, remedy: str = _AGAIN, error: type[OfaError] = FileError) -> Any:
    """Read a JSON file; its seal is checked and removed.

    Args:
        path: of the file.
        sealed: whether a seal is required; files written by hand have none.
        remedy: next step in messages about malformed files.
        error: class of all other errors.

    Raises:
        DamagedError: the seal does not match, or is missing although required.
        OfaError: of the class ``error``: as in ``parse_json``, or the file cannot be read.
    """
    content, what = read_bytes(path, most=LARGEST_JSON, error=error), f"'{os.fspath(path)}'"
    check_seal(content, required=sealed, what=what)
    value = parse_json(content, what=what, remedy=remedy, error=error)
    if isinstance(value, dict) and is_seal(value.get(SEAL_KEY)):
        del value[SEAL_KEY]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1) if len(keys) < 1000 else "one"
        raise UnfitError(f"it has the key {twice[:80]!r} twice")
    return found


def _constant(name: str) -> NoReturn:
    raise UnfitError(f"it holds {name}, which is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_INFINITE = json.JSONDecoder(object_pairs_hook=_object)


# -- TOML -------------------------------------------------------------------------------------------------------------


def parse_toml(text: str, *, what: str, remedy: str = "correct that line", error: type[OfaError] = FileError) -> dict[str, Any]:
    """Parse TOML; floats may be infinite or NaN.

    Args:
        text: the document.
        what: name of the document in messages.
        remedy: next step in messages.
        error: class of all errors.

    Raises:
        OfaError: of the class ``error``: the text is not TOML, too large, or nested deeper than ``DEEPEST``; or it has a duplicate key, an
            integer of 2^128 or more, or invalid Unicode.
    """
    import tomllib  # imported here because Python on devices may be older; TOML is not read there

    try:
        _check_toml(text)
        value = tomllib.loads(text)
        _check(value, finite=False)  # users write inf for no limit
    except (UnfitError, ValueError, RecursionError) as problem:
        raise error(f"{what} must be TOML, but {_reason(problem)}; {remedy}") from problem
    return value


def read_toml(
    path: str | os.PathLike[str], *, what: str = "file", remedy: str = "correct that line", error: type[OfaError] = FileError
) -> dict[str, Any]:
    """Read a TOML file; ``what`` is the noun for the file in messages, the other arguments and errors are as in ``parse_toml``."""
    text = read_text(path, most=LARGEST_TOML, what=what, error=error)
    return parse_toml(text, what=f"'{os.fspath(path)}'", remedy=remedy, error=error)


def _check_toml(text: str) -> None:
    """Refuse long dotted keys and deep nesting, for which tomllib needs excessive time or stack."""
    if len(text) > LARGEST_TOML:
        raise UnfitError(f"it has {len(text)} characters, more than {LARGEST_TOML}")
    bare = _TOML_TEXTS.sub("", text).replace(" ", "").replace("\t", "")
    if any(key.count(".") > DEEPEST for key in re.split(r"[\n,=\[\]{}]", bare)):
        raise UnfitError(f"a key of it has more than {DEEPEST} parts")
    if bare.count("[") + bare.count("{") > DEEPEST:
        depth = 0
        for bracket in re.findall(r"[\[\]{}\n]", bare):
            depth = max(0, depth + (bracket in "[{") - (bracket in "]}"))
            if depth > DEEPEST:
                raise UnfitError(f"it is nested more than {DEEPEST} deep")


# -- YAML -------------------------------------------------------------------------------------------------------------


def parse_yaml(text: bytes, *, what: str, remedy: str = _AGAIN, error: type[OfaError] = FileError) -> Any:
    """Parse YAML with plain values only. Anchors, aliases, merges and tags are refused, as they allow small files to expand hugely.

    Args:
        text: the document, UTF-8.
        what: name of the document in messages.
        remedy: next step in messages.
        error: class of all errors.

    Raises:
        OfaError: of the class ``error``: the text is not YAML, uses a refused feature, or exceeds a limit.
    """
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if len(text) > LARGEST_YAML:
            raise UnfitError(f"it has {len(text)} bytes, more than {LARGEST_YAML}")
        _check_events(yaml.parse(text, Loader=loader))
        value = loader(text).get_single_data()
        _check(value)
    except (yaml.YAMLError, UnfitError, ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise error(f"{what} must be YAML, but {_reason(problem)}; {remedy}") from problem
    return value


def read_yaml(path: str | os.PathLike[str], *, remedy: str = _AGAIN, error: type[OfaError] = FileError) -> Any:
    """Read a YAML file; arguments and errors as in ``parse_yaml``, or the file cannot be read."""
    return parse_yaml(read_bytes(path, most=LARGEST_YAML, error=error), what=f"'{os.fspath(path)}'", remedy=remedy, error=error)


def _check_events(events: Iterator[Any]) -> None:
    depth = 0
    for number, event in enumerate(events):
        kind = type(event).__name__
        if kind == "AliasEvent" or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise UnfitError("it has anchors, aliases or tags, which are not read")
        if kind == "ScalarEvent" and (len(event.value) > LONGEST_SCALAR or event.value == "<<"):
            raise UnfitError("it merges mappings" if event.value == "<<" else f"a value of it has {len(event.value)} characters")
        depth += kind in ("MappingStartEvent", "SequenceStartEvent")
        depth -= kind in ("MappingEndEvent", "SequenceEndEvent")
        if depth > DEEPEST:
            raise UnfitError(f"it is nested more than {DEEPEST} deep")
        if number > MOST_EVENTS:
            raise UnfitError(f"it has more than {MOST_EVENTS} values")


# -- checks of values --------------------------------------------------------------------------------------------------


def _check(value: Any, *, finite: bool = True) -> None:
    """Refuse values that are nested too deeply, numbers that are not finite or too large, and invalid Unicode."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise UnfitError(f"it is nested more than {DEEPEST} deep")
        inner: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                inner += each
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                _check_text(each)
            elif finite and isinstance(each, float) and not math.isfinite(each):
                raise UnfitError(f"it holds the number {each}, which is not finite")
            elif isinstance(each, int) and abs(each) >= LARGEST_NUMBER:
                raise UnfitError("it holds a whole number of 2^128 or more")
        level, depth = inner, depth + 1


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UnfitError("it holds half a character (a lone surrogate)")


def _reason(problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, ValueError) and "integer string conversion" in str(problem):
        return "it holds a whole number of 2^128 or more"
    mark, said = getattr(problem, "problem_mark", None), getattr(problem, "problem", None) or getattr(problem, "reason", None)
    if mark is not None:
        return f"{said or type(problem).__name__} in line {mark.line + 1}"
    return " ".join(str(problem).split()) or type(problem).__name__
