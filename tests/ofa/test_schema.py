"""Between dataclasses and the JSON values of files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ofa.arch import Arch
from ofa.errors import SchemaError
from ofa.families import get_space
from ofa.schema import parse, to_json


@dataclass(frozen=True, kw_only=True)
class Part:
    arch: Arch
    ms: float
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    parts: tuple[Part, ...]
    known: Mapping[str, float]
    sizes: tuple[int | str, ...] = ()
    free: Mapping[str, Any] = field(default_factory=dict)
    count: int | None
    flag: bool = False
    double: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "double", 2.0 * sum(part.ms for part in self.parts))


PART = Part(arch=get_space("ofa-mbv3-tiny").smallest(), ms=1.5)
WHOLE = Whole(parts=(PART,), known={"a": 1.0}, sizes=(224, "224x160"), free={"x": [1, None]}, count=None)


def test_what_is_written_is_read_as_it_was() -> None:
    value = json.loads(json.dumps(to_json(WHOLE)))
    assert parse(Whole, value) == WHOLE
    assert "text" not in value["parts"][0], "what is None by default is left out"
    assert value["count"] is None
    assert value["double"] == 3.0, "what follows from other fields is written, and made anew when it is read"


def test_keys_of_later_versions_are_ignored() -> None:
    assert parse(Whole, {**to_json(WHOLE), "later": {"deep": 1}, "double": "no number"}) == WHOLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 1.5}, "'count' must be a whole number, but is 1.5"),
        ({"count": True}, "'count' must be a whole number, but is True"),
        ({"flag": 1}, "'flag' must be true or false, but is 1"),
        ({"known": {"a": math.nan}}, "'known.a' must be a number, but is nan"),
        ({"known": {"a": "fast"}}, "'known.a' must be a number, but is 'fast'"),
        ({"known": [1]}, "'known' must be an object"),
        ({"parts": {}}, "'parts' must be a list"),
        ({"parts": [{"ms": 1}]}, "'parts[0].arch' is missing"),
        ({"parts": [{"ms": 1, "arch": {"space": "x"}}]}, "'parts[0].arch' is not valid"),
        ({"parts": [{**to_json(PART), "text": 3}]}, "'parts[0].text' must be a text, but is 3"),
        ({"sizes": [1.5]}, "'sizes[0]' must be a whole number or a text, but is 1.5"),
    ],
)
def test_a_wrong_value_is_named_in_words(change: dict[str, object], words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        parse(Whole, {**to_json(WHOLE), **change})
    assert words in str(caught.value)


def test_no_object_is_none() -> None:
    with pytest.raises(SchemaError, match="it must be an object, but is 3"):
        parse(Whole, 3)
