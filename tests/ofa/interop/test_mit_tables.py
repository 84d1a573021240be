from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest

from ofa.blocks import Classifier, ConvBlock, FeatureMix, InvertedResidual, MaxPool
from ofa.errors import FileError, TableError
from ofa.interop.mit_tables import Measurement, load_mit_table
from tests.ofa.strategies import placed_at

NEWER = """
AvgPool2D-input:7x7x96-output:1x1x96: {count: 40, mean: 0.03, std: 0.003}
Conv-input:224x224x3-output:112x112x16: {count: 50, mean: 1.5, std: 0.1}
Conv_1-input:7x7x40-output:7x7x96: {count: 50, mean: 0.5, std: 0.02}
Conv_2-input:1x1x96-output:1x1x128: {count: 50, mean: 0.2, std: 0.004}
Logits-input:1x1x128-output:10: {count: 50, mean: 0.1, std: 0}
expanded_conv-input:112x112x16-output:112x112x16-expand:16-kernel:3-stride:1-idskip:1-se:0-hs:0: {count: 50, mean: 2, std: 0.2}
expanded_conv-input:14x14x24-output:7x7x40-expand:72-kernel:5-stride:2-idskip:0-se:1-hs:1: {count: 7, mean: 3.25, std: 0.3}
"""
OLDER = """
Conv-input:160x160x3-output:80x80x32: {count: 9, mean: 4.0, var: 0.25}
Logits-input:5x5x320-output:1000: {count: 9, mean: 0.3, var: 0.01}
expanded_conv-input:80x80x32-output:80x80x16-expand:1-kernel:3-stride:1-idskip:0: {count: 9, mean: 3.5, var: 0.04}
expanded_conv-input:10x10x40-output:10x10x40-expand:6-kernel:7-stride:1-idskip:1: {count: 9, mean: 1.5, var: 0.09}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "table.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("block", "size", "mean_ms", "std_ms", "count"),
    [
        (ConvBlock(in_channels=3, out_channels=16, kernel=3, stride=2, activation="h_swish"), 224, 1.5, 0.1, 50),
        (InvertedResidual(in_channels=16, mid_channels=16, out_channels=16, kernel=3, expand=False, residual=True), 112, 2.0, 0.2, 50),
        (
            InvertedResidual(
                in_channels=24, mid_channels=72, out_channels=40, kernel=5, stride=2, activation="h_swish", squeeze_excite=True
            ),
            *(14, 3.25, 0.3, 7),
        ),
        (ConvBlock(in_channels=40, out_channels=96, activation="h_swish"), 7, 0.5, 0.02, 50),
        (FeatureMix(in_channels=96, out_channels=128), 7, 0.23, 0.005, 40),
        (Classifier(in_channels=128, out_channels=10), 1, 0.1, 0.0, 50),
    ],
)
def test_a_block_gets_the_time_of_its_entries(
    tmp_path: Path, block: InvertedResidual, size: int, mean_ms: float, std_ms: float, count: int
) -> None:
    table = load_mit_table(write(tmp_path, NEWER))
    found = table.measurement(placed_at(size, block, "here"))
    assert found is not None
    assert (found.mean_ms, found.std_ms, found.count) == (pytest.approx(mean_ms), pytest.approx(std_ms), count)
    assert table.measurement(placed_at(size + 1, block, "here")) is None


@pytest.mark.parametrize("change", [{"kernel": 3}, {"squeeze_excite": False}, {"activation": "relu"}, {"mid_channels": 96}, {"stride": 1}])
def test_a_block_that_differs_in_one_thing_is_not_there(tmp_path: Path, change: dict[str, object]) -> None:
    fields = {"in_channels": 24, "mid_channels": 72, "out_channels": 40, "kernel": 5, "stride": 2, "activation": "h_swish"}
    block = InvertedResidual(**{**fields, "squeeze_excite": True, **change})  # type: ignore[arg-type]
    assert load_mit_table(write(tmp_path, NEWER)).entries_of(placed_at(14, block, "here")) == ()


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    table = load_mit_table(write(tmp_path, NEWER))
    assert (table.resolution, len(table.entries)) == (224, 7)
    assert table.sha256 == hashlib.sha256(NEWER.encode()).hexdigest()
    assert table.entries_of(placed_at(7, FeatureMix(in_channels=96, out_channels=128), "head.mix")) == (
        "AvgPool2D-input:7x7x96-output:1x1x96",
        "Conv_2-input:1x1x96-output:1x1x128",
    )


def test_a_part_alone_is_no_block(tmp_path: Path) -> None:
    text = "\n".join(line for line in NEWER.splitlines() if not line.startswith("AvgPool2D"))
    table = load_mit_table(write(tmp_path, text))
    assert table.measurement(placed_at(7, FeatureMix(in_channels=96, out_channels=128), "head.mix")) is None


def test_a_block_that_nobody_published_is_not_there(tmp_path: Path) -> None:
    table = load_mit_table(write(tmp_path, NEWER))
    assert table.measurement(placed_at(112, MaxPool(in_channels=16, out_channels=16), "stem.pool")) is None


def test_older_files_have_ratios_and_variances(tmp_path: Path) -> None:
    table = load_mit_table(write(tmp_path, OLDER))
    first = InvertedResidual(in_channels=32, mid_channels=32, out_channels=16, kernel=3, activation="relu6", expand=False)
    later = InvertedResidual(in_channels=40, mid_channels=240, out_channels=40, kernel=7, activation="relu6", residual=True)
    assert table.resolution == 160
    assert table.measurement(placed_at(80, first, "stem.block")) == Measurement(mean_ms=3.5, std_ms=0.2, count=9)
    assert table.measurement(placed_at(10, later, "stages.1.1")) == Measurement(mean_ms=1.5, std_ms=0.3, count=9)
    last = placed_at(5, Classifier(in_channels=320, out_channels=1000, pool=True), "classifier")
    assert table.measurement(last) == Measurement(mean_ms=0.3, std_ms=0.1, count=9)


def test_older_files_are_not_of_networks_with_other_activations(tmp_path: Path) -> None:
    block = InvertedResidual(in_channels=40, mid_channels=240, out_channels=40, kernel=7, activation="relu", residual=True)
    assert load_mit_table(write(tmp_path, OLDER)).measurement(placed_at(10, block, "stages.1.1")) is None


def test_calls_of_one_thing_are_pooled() -> None:
    # Calls that took 1, 3 and 1, 3, 5, 7: together 20 / 6, and their deviation.
    parts = [Measurement(mean_ms=2.0, std_ms=1.0, count=2), Measurement(mean_ms=4.0, std_ms=math.sqrt(5), count=4)]
    calls = [1, 3, 1, 3, 5, 7]
    mean = sum(calls) / 6
    together = Measurement.pooled(parts)
    assert together.mean_ms == pytest.approx(mean)
    assert together.std_ms == pytest.approx(math.sqrt(sum((call - mean) ** 2 for call in calls) / 6))
    assert together.count == 6
    assert Measurement.pooled(parts[:1]) == parts[0]


CONV = "Conv-input:32x32x3-output:16x16x8"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "must be YAML, but"),
        ("a: !!python/object/apply:os.getcwd []", "must be YAML, but it has anchors, aliases or tags"),
        ("a: 2026-13-45", "must be YAML, but"),
        ("[" * 3000, "nested more than 64 deep"),
        ("\x00", "must be YAML, but"),
        ("", "must be a mapping of entries, but is empty"),
        ("- 1\n- 2", "must be a mapping of entries, but is a list"),
        ("just words", "must be a mapping of entries, but is 'just words'"),
        (f"{CONV}: 3.5", "must have the keys mean, std (or var) and count, but is 3.5"),
        (f"{CONV}: {{mean: 1.0, std: 0.1}}", "but is a mapping of mean, std"),
        (f"{CONV}: {{mean: fast, std: 0.1, count: 2}}", "'mean' of 'Conv-input:32x32x3-output:16x16x8' in "),
        (f"{CONV}: {{mean: fast, std: 0.1, count: 2}}", "must be a number above 0, but is 'fast'"),
        (f"{CONV}: {{mean: 0, std: 0.1, count: 2}}", "must be a number above 0, but is 0"),
        (f"{CONV}: {{mean: .nan, std: 0.1, count: 2}}", "nan, which is not finite"),
        (f"{CONV}: {{mean: true, std: 0.1, count: 2}}", "must be a number above 0, but is True"),
        (f"{CONV}: {{mean: 1{'0' * 400}, std: 0.1, count: 2}}", "a whole number of 2^128 or more"),
        (f"{CONV}: {{mean: [1, 2], std: 0.1, count: 2}}", "must be a number above 0, but is a list"),
        (f"{CONV}: {{mean: 1, var: -0.1, count: 2}}", "'var' of "),
        (f"{CONV}: {{mean: 1, std: .inf, count: 2}}", "inf, which is not finite"),
        (f"{CONV}: {{mean: 1, std: 1, count: 2.5}}", "a whole number above 0, but is 2.5"),
        (f"{CONV}: {{mean: 1, std: 1, count: 0}}", "a whole number above 0, but is 0"),
        ("Logits-input:1x1x8-output:10: {mean: 1, std: 1, count: 1}", "but it has 0;"),
        ("".join(f"Conv-input:{side}x{side}x3-: {{mean: 1, std: 1, count: 1}}\n" for side in (32, 64)), "but it has 2;"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TableError) as caught:
        load_mit_table(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_mit_table(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\x00\xfe\x80")
    with pytest.raises(TableError, match="must be YAML"):
        load_mit_table(tmp_path / "binary.yaml")
