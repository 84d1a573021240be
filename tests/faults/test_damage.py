"""Damaged files end in a sentence of ours: no other exception, no hang, no crash, and where there is a checksum no wrong content unseen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ofa.errors import OfaError
from ofa.exporting.card import Card
from ofa.reading.parquet import open_parquet
from tests.faults.cli import ofa, said
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


def test_a_damaged_footer_of_parquet_never_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"label": pa.array(["cat", None, "dog"])}), path, store_schema=False)
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    for place in range(len(content) - 8 - footer, len(content) - 8):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with suppress(OfaError), open_parquet(path) as opened:
            opened.read()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("recipe", r"(?s)depth = \[.*?\]", "depth = [0, inf]"),
        ("recipe", r"(?m)^space = .*", f'space = "{"x" * 5000}"'),
        ("space", r'"family": "\w+"', '"family": []'),
        ("space", r'"name": "[\w-]+"', '"name": []'),
    ],
)
def test_values_of_another_kind_are_refused(name: str, old: str, new: str, light_files: Path, tmp_path: Path) -> None:
    text = (light_files / READERS[name].file).read_text()
    changed = re.sub(old, lambda _: new, text, count=1)
    assert changed != text
    path = tmp_path / READERS[name].file
    path.write_text(changed)
    with pytest.raises(OfaError):
        READERS[name].read(path)


def test_a_whole_file_of_another_kind_is_no_card(light_files: Path) -> None:
    with pytest.raises(OfaError, match="must be a card"):
        Card.load(light_files / "network.engine.json")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "{}", "-o", "run"),
        ("space", "{}"),
        ("data", "{}"),
        ("table", "show", "{}"),
        ("table", "build", "--space", "{}", "--device", "fake", "-o", "table"),
        ("table", "build", "--space", "ofa-mbv3-tiny", "--device", "{}", "-o", "table"),
        ("predictor", "fit", "{}", "-o", "predictor"),
        ("search", "--predictor", "{}", "--table", "{}", "-o", "front"),
        ("query", "{}", "--latency", "1ms"),
        ("specialize", "{}", "--arch", "{}", "-o", "bundle"),
        ("export", "{}", "--to", "onnx", "-o", "network.onnx"),
        ("verify", "{}", "--device", "local-cpu"),
        ("report", "{}", "-o", "report.html"),
        ("import", "mit-weights", "{}", "--space", "ofa-mbv3-tiny", "-o", "run"),
    ],
)
def test_a_name_that_is_too_long_for_any_file_is_refused(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ofa(*(word.format("x" * 5000) for word in words))
    assert result.exit_code == 1, said(result)
    assert "should not have happened" not in said(result)
    assert not list(tmp_path.iterdir())
