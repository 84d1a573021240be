"""Files on a device are what their names say, whatever happened to them there."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from devices.store import Store, stored_name
from ofa.errors import DeviceError

CONTENT = b"a network"
NAME = stored_name(CONTENT, ".onnx")


def put(store: Store, content: bytes = CONTENT, *, name: str = NAME, size: int = 4) -> None:
    for start in range(0, len(content), size):
        chunk = base64.b64encode(content[start : start + size]).decode()
        store.put(name, start, chunk, last=start + size >= len(content))


def missing(store: Store, *names: str) -> list[str]:
    return store.missing(names or [NAME], lambda note: None)


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert missing(store) == [NAME]
    store.put(NAME, 0, base64.b64encode(CONTENT[:4]).decode(), last=False)
    assert missing(store) == [NAME]
    put(store)
    assert missing(store) == missing(Store(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "link", "folder"])
def test_a_file_that_is_not_what_its_name_says_is_missing(tmp_path: Path, damage: str) -> None:
    put(Store(tmp_path))
    path = tmp_path / NAME
    if damage in ("link", "folder"):
        path.unlink()
        (tmp_path / "other").write_bytes(CONTENT)
        path.symlink_to(tmp_path / "other") if damage == "link" else path.mkdir()
    else:
        path.write_bytes({"changed": b"A network", "cut": CONTENT[:-1], "empty": b""}[damage])
    store = Store(tmp_path)
    assert missing(store) == [NAME]
    if damage != "folder":
        put(store)
        assert missing(store) == []


def test_a_file_that_is_changed_while_an_agent_runs_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    (tmp_path / NAME).write_bytes(b"A network")
    os.utime(tmp_path / NAME, ns=(1, 1))
    assert missing(store) == [NAME]


def test_what_arrives_as_something_else_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(DeviceError, match="must arrive as it was sent"):
        put(store, b"another  ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../a.onnx", "/etc/passwd", "a.onnx", NAME.upper(), f"../{NAME}", f"{NAME}/x", f"{NAME}\n", NAME[:64] + ".a/b", "", None, 3]
)
def test_only_names_of_contents_are_names(tmp_path: Path, name: object) -> None:
    store = Store(tmp_path)
    with pytest.raises(DeviceError, match="must be named by its content's hash"):
        store.put(name, 0, "", last=True)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="must be named by its content's hash"):
        missing(store, name)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [1, 8, -1, 1 << 60])
def test_parts_come_in_order(tmp_path: Path, start: int) -> None:
    store = Store(tmp_path)
    store.put(NAME, 0, base64.b64encode(CONTENT[:4]).decode(), last=False)
    with pytest.raises(DeviceError, match="must arrive in order"):
        store.put(NAME, start, base64.b64encode(CONTENT[4:]).decode(), last=True)


def test_what_the_dead_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    living = Store(tmp_path)
    living.put(NAME, 0, base64.b64encode(CONTENT[:4]).decode(), last=False)
    dead = [f"{NAME}.123.part", f"{NAME}.part", f"{stored_name(b'x', '')}.9.part"]
    others = ["holiday.mp4.part", "notes.txt", stored_name(b"whole", ".onnx")]
    for name in (*dead, *others):
        (tmp_path / name).write_bytes(b"some")
    missing(Store(tmp_path), stored_name(b"y", ".onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, f"{NAME}.{os.getpid()}.part"])
    living.put(NAME, 4, base64.b64encode(CONTENT[4:]).decode(), last=True)
    assert missing(living) == []
