"""Damaged files end in a sentence of ours: no other exception, no hang, no crash, and where there is a checksum no wrong content unseen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.damage import FINE, attempt, try_many
from tests.faults.readers import READERS, make_files

TRIED = 10_000
FEW = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_or_right(name: str, files: Path) -> None:
    reader, path = READERS[name], files / READERS[name].file
    content = path.read_bytes()
    whole, wrong = reader.read(path), {}
    others = [(files / other.file).read_bytes() for other in READERS.values() if other.file != reader.file]
    try:
        for number in range(reader.few):
            result, kind = attempt(reader, path, whole, content, number, others[number % len(others)])
            if result not in FINE:
                wrong[number] = f"{kind}: {result}"
    finally:
        path.write_bytes(content)
    assert not wrong


@pytest.mark.torture
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_damages_of_a_file(name: str, files: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    shutil.copytree(files, tmp_path / "files")
    outcome = try_many(tmp_path / "files", name, 0, TRIED)
    counts = {result.replace(" ", "_"): count for result, count in outcome.counts.items()}
    record_property("figures", {"what": f"damaged files: {name}", "tried": sum(counts.values()), **counts})
    assert not outcome.wrong
