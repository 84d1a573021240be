"""Reading: what is refused, and that it is refused fast."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa.errors import FileError
from ofa.reading import parse_json, parse_toml, parse_yaml, read_bytes, read_json, read_text

REFUSED_JSON = {
    "a million deep": "[" * 10**6,
    "objects too deep": '{"a":' * 100 + "1" + "}" * 100,
    "not a number": "[NaN]",
    "infinite": "-Infinity",
    "beyond floats": "1e999",
    "a long integer": "9" * 10**5,
    "an integer beyond 128 bits": str(2**128),
    "half a character": r'{"\ud800": 1}',
    "a key twice": '{"a": 1, "b": 2, "a": 3}',
    "too large": '"' + "x" * 5 * 2**20 + '"',
    "nothing": "",
    "two values": "1 2",
}
REFUSED_TOML = {
    "dotted keys without end": "a." * 10**5 + "b = 1",
    "quoted keys without end": '"a, ". ' * 50_000 + "b = 1",
    "headers without end": "[" + "a." * 10**5 + "b]",
    "lists too deep": "a = " + "[" * 10**5,
    "tables too deep": "a = " + "{b = " * 200 + "1" + "}" * 200,
    "a long integer": "a = " + "9" * 10**5,
    "a long hexadecimal": "a = 0x" + "f" * 10**5,
    "a date that is none": "a = 2026-02-31",
    "a key twice": "a = 1\na = 2",
    "too large": "#" * 2**20,
}
REFUSED_YAML = {
    "merges": b"a: &a {x: 1}\nb: {<<: [*a, *a]}",
    "a merge without alias": b"b: {<<: {x: 1}}",
    "aliases": b"a: &a [1, 2]\nb: [*a, *a]",
    "lists too deep": b"[" * 10**5,
    "blocks too deep": b"- " * 10**5,
    "numbers of base 60": b"a: 1" + b":1" * 10**5,
    "too many values": b"[" + b"1," * 10**5 + b"]",
    "objects": b"!!python/object/apply:os.system [true]",
    "a tag": b"a: !!binary aGVsbG8=",
    "a list as key": b"? [1]\n: 2",
    "a date that is none": b"a: 2026-02-31",
    "not a number": b"a: .nan",
    "a zero byte": b"a\0b: 1",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("text", REFUSED_JSON.values(), ids=REFUSED_JSON)
def test_json_that_nobody_writes_is_refused(text: str) -> None:
    with pytest.raises(FileError, match=r"'x' must be JSON, but .*; write it again"):
        parse_json(text, what="'x'")


@pytest.mark.parametrize("text", REFUSED_TOML.values(), ids=REFUSED_TOML)
def test_toml_that_nobody_writes_is_refused(text: str) -> None:
    with pytest.raises(FileError, match=r"'x' must be TOML, but .*; correct that line"):
        parse_toml(text, what="'x'")


@pytest.mark.parametrize("text", REFUSED_YAML.values(), ids=REFUSED_YAML)
def test_yaml_that_nobody_writes_is_refused(text: bytes) -> None:
    with pytest.raises(FileError, match=r"'x' must be YAML, but .*; write it again"):
        parse_yaml(text, what="'x'")


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_json, r'{"a": [1, 2.5e300, -18446744073709551615, "\ud83d\ude00", null]}', {"a": [1, 2.5e300, 1 - 2**64, "😀", None]}),
        (parse_json, b'["\xc3\xa4"]', ["ä"]),
        (parse_json, "[" * 64 + "]" * 64, None),
        (
            parse_toml,
            "a.b = 'x.y.z # ['  # [[[\n[c]\nd = [[1.5, 2], ['''\n[''']]",
            {"a": {"b": "x.y.z # ["}, "c": {"d": [[1.5, 2], ["["]]}},
        ),
        (parse_toml, "versions = [" + "0.25, " * 1000 + "]", {"versions": [0.25] * 1000}),
        (parse_yaml, b"a: {mean: 1.5, count: 2}\nb: x", {"a": {"mean": 1.5, "count": 2}, "b": "x"}),
    ],
)
def test_what_people_write_is_read(parse: Callable[..., Any], text: Any, value: Any) -> None:
    read = parse(text, what="'x'")
    assert value is None or read == value


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "loop", "device", "absent", "impossible name"])
def test_only_plain_files_are_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "impossible name":
        path = Path("a\0b")
    with pytest.raises(FileError, match=r"must be a readable file, but .*; check the path"):
        read_json(path)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"123456")
    assert read_bytes(path, most=6) == b"123456"
    with pytest.raises(FileError, match=r"must have at most 5 bytes, but .* has 6"):
        read_bytes(path, most=5)
    os.truncate(path, 2**40)  # a hole, which takes no room
    with pytest.raises(FileError, match=r"must have at most"):
        read_json(path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux has files that say they are empty")
def test_a_file_that_is_larger_than_it_says_is_read_to_the_limit() -> None:
    with pytest.raises(FileError, match=r"must have at most 100 bytes"):
        read_bytes("/proc/self/maps", most=100)


def test_text_is_unicode(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match=r"must be text in UTF-8"):
        read_text(tmp_path / "x", most=10)
