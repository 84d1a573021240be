"""Damaged files end in a sentence of ours: no other exception, no hang, no crash, and where there is a checksum no wrong content unseen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.damage import FINE, attempt, try_many
from tests.faults.readers import LIGHT, READERS, make_files, make_light_files

TRIED = 10_000
FEW = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def light_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_light_files(tmp_path_factory.mktemp("files"))


def check(name: str, files: Path, count: int) -> None:
    reader, path = READERS[name], files / READERS[name].file
    content = path.read_bytes()
    whole, wrong = reader.read(path), {}
    others = [other.read_bytes() for other in sorted(files.rglob("*")) if other.is_file() and other != path]
    try:
        for number in range(count):
            result, kind = attempt(reader, path, whole, content, number, others[number % len(others)])
            if result not in FINE:
                wrong[number] = f"{kind}: {result}"
    finally:
        path.write_bytes(content)
    assert not wrong


@pytest.mark.parametrize("name", LIGHT)
def test_a_damaged_file_is_refused_or_right(name: str, light_files: Path) -> None:
    check(name, light_files, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in READERS if name not in LIGHT])
def test_a_large_damaged_file_is_refused_or_right(name: str, files: Path) -> None:
    check(name, files, FEW)


@pytest.mark.torture
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_damages_of_a_file(name: str, files: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    shutil.copytree(files, tmp_path / "files")
    outcome = try_many(tmp_path / "files", name, 0, TRIED)
    counts = {result.replace(" ", "_"): count for result, count in outcome.counts.items()}
    record_property("figures", {"what": f"damaged files: {name}", "tried": sum(counts.values()), **counts})
    assert not outcome.wrong
