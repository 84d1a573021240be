from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest

from devices import Device
from latency_tables import Estimator, LatencyTable
from latency_tables.importing import import_mit_tables
from latency_tables.info import PublishedFile
from ofa.errors import FileError, TableError
from ofa.families import MobileNetV3Space, get_space, lower, proxyless
from ofa.families.mobilenet_v3 import make_space
from ofa.interop import mit

# Written by hand: all that a space of two networks is made of, at 32 px and at 16 px.
AT_32 = {
    "AvgPool2D-input:8x8x24-output:1x1x24": 0.02,
    "Conv-input:32x32x3-output:16x16x8": 1.0,
    "Conv_1-input:8x8x16-output:8x8x24": 0.5,
    "Conv_2-input:1x1x24-output:1x1x32": 0.08,
    "Logits-input:1x1x32-output:10": 0.2,
    "expanded_conv-input:16x16x8-output:16x16x8-expand:8-kernel:3-stride:1-idskip:1-se:0-hs:0": 2.0,
    "expanded_conv-input:16x16x8-output:8x8x16-expand:24-kernel:3-stride:2-idskip:0-se:0-hs:0": 3.0,
    "expanded_conv-input:16x16x8-output:8x8x16-expand:24-kernel:5-stride:2-idskip:0-se:0-hs:0": 4.0,
}
AT_16 = {
    "AvgPool2D-input:4x4x24-output:1x1x24": 0.01,
    "Conv-input:16x16x3-output:8x8x8": 0.25,
    "Conv_1-input:4x4x16-output:4x4x24": 0.125,
    "Conv_2-input:1x1x24-output:1x1x32": 0.09,
    "Logits-input:1x1x32-output:10": 0.4,
    "expanded_conv-input:8x8x8-output:8x8x8-expand:8-kernel:3-stride:1-idskip:1-se:0-hs:0": 0.5,
    "expanded_conv-input:8x8x8-output:4x4x16-expand:24-kernel:3-stride:2-idskip:0-se:0-hs:0": 0.75,
    "expanded_conv-input:8x8x8-output:4x4x16-expand:24-kernel:5-stride:2-idskip:0-se:0-hs:0": 1.0,
}


@pytest.fixture(scope="module")
def small() -> MobileNetV3Space:
    return make_space(
        *("small", 1.0, (16, 32)),
        widths=(16,),
        strides=(2,),
        stem=(8, 2),
        head=(24, 32),
        kernels=(3, 5),
        expands=(3,),
        depths=(1,),
        num_classes=10,
    )


def write(path: Path, means_ms: Mapping[str, float]) -> Path:
    path.write_text("".join(f"{name}:\n  count: 50\n  mean: {ms}\n  std: 0.01\n" for name, ms in means_ms.items()), encoding="utf-8")
    return path


@pytest.fixture
def file_32(tmp_path: Path) -> Path:
    return write(tmp_path / "32.yaml", AT_32)


@pytest.fixture
def file_16(tmp_path: Path) -> Path:
    return write(tmp_path / "16.yaml", AT_16)


def test_estimates_are_sums_of_entries(small: MobileNetV3Space, file_32: Path) -> None:
    table = import_mit_tables([file_32], small, device="a phone")
    estimate = Estimator(small, table)
    assert len(table) == 7  # the pooling and the convolution behind it are one block
    assert estimate(small.largest(resolution=32)).latency_ms == pytest.approx(1.0 + 2.0 + 4.0 + 0.5 + 0.02 + 0.08 + 0.2)
    assert estimate(small.smallest(resolution=32)).latency_ms == pytest.approx(1.0 + 2.0 + 3.0 + 0.5 + 0.02 + 0.08 + 0.2)


def test_rows_hold_what_was_published_and_nothing_else(small: MobileNetV3Space, file_32: Path) -> None:
    rows = import_mit_tables([file_32], small, device="a phone", precision="int8", batch=4).rows
    assert set(rows["repeats"]) == {50}
    assert set(rows["precision"]) == {"int8"}
    assert set(rows["batch"]) == {4}
    assert rows["std_ms"].min() == pytest.approx(0.01)
    assert rows[["p90_ms", "min_ms", "energy_mj", "peak_memory_bytes"]].isna().all(axis=None)


def test_a_block_in_several_files_gets_the_mean_of_all_calls(small: MobileNetV3Space, file_32: Path, file_16: Path) -> None:
    table = import_mit_tables([file_32, file_16], small, device="a phone")
    assert len(table) == 13  # the classifier is the same at both sizes
    classifier = lower(small, small.largest(resolution=32))[-1]
    assert table.latency_ms(classifier) == pytest.approx(0.3)
    assert set(table.rows["repeats"]) == {50, 100}
    assert table.info.spaces == {"small": (16, 32)}


def test_the_table_says_where_it_came_from(small: MobileNetV3Space, file_32: Path, tmp_path: Path) -> None:
    table = import_mit_tables([file_32], small, device="a phone")
    table.save(tmp_path / "table.parquet")
    loaded = LatencyTable.load(tmp_path / "table.parquet")
    assert loaded.info == table.info
    assert loaded.device_name == "a phone"
    assert loaded.correction is None
    sha256 = hashlib.sha256(file_32.read_bytes()).hexdigest()
    assert loaded.info.sources == (PublishedFile(name="32.yaml", sha256=sha256, resolution=32),)
    assert "published by others" in loaded.info.note
    assert datetime.fromisoformat(loaded.info.date).tzinfo is not None


@pytest.mark.parametrize("name", ["phone", "fake"])
def test_no_device_here_passes_for_the_one_that_others_measured(small: MobileNetV3Space, file_32: Path, name: str) -> None:
    table = import_mit_tables([file_32], small, device="phone")
    with pytest.raises(TableError, match="must be of the device that it is used with"):
        table.require_device(Device(name=name, runtime="fake"))


OLDER = """
Conv-input:32x32x3-output:16x16x16: {mean: 1.0, var: 0.01, count: 5}
Conv_1-input:8x8x16-output:8x8x24: {mean: 0.5, var: 0.01, count: 5}
Logits-input:8x8x24-output:10: {mean: 0.25, var: 0.01, count: 5}
expanded_conv-input:16x16x16-output:16x16x8-expand:1-kernel:3-stride:1-idskip:0: {mean: 2.0, var: 0.01, count: 5}
expanded_conv-input:16x16x8-output:8x8x16-expand:3-kernel:5-stride:2-idskip:0: {mean: 3.0, var: 0.01, count: 5}
expanded_conv-input:16x16x8-output:8x8x16-expand:4-kernel:5-stride:2-idskip:0: {mean: 4.0, var: 0.01, count: 5}
expanded_conv-input:16x16x8-output:8x8x16-expand:6-kernel:5-stride:2-idskip:0: {mean: 6.0, var: 0.04, count: 5}
"""


def test_older_files_fit_the_spaces_of_their_family(tmp_path: Path) -> None:
    space = proxyless.make_space("small", 1.0, (32,), stem=(16, 8), widths=(16,), strides=(2,), head=24, kernels=(5,), num_classes=10)
    (tmp_path / "older.yaml").write_text(OLDER, encoding="utf-8")
    table = import_mit_tables([tmp_path / "older.yaml"], space, device="phone")
    assert Estimator(space, table)(space.largest()).latency_ms == pytest.approx(1.0 + 2.0 + 6.0 + 0.5 + 0.25)
    assert Estimator(space, table)(space.smallest()).latency_ms == pytest.approx(1.0 + 2.0 + 3.0 + 0.5 + 0.25)
    assert table.rows["std_ms"].max() == pytest.approx(0.2)


def test_files_of_another_space_are_refused(file_32: Path) -> None:
    with pytest.raises(TableError, match=r"8 are not, first 'AvgPool2D-input:8x8x24-output:1x1x24'; name the space"):
        import_mit_tables([file_32], get_space("ofa-mbv3-tiny"), device="phone")
    with pytest.raises(TableError, match=r"16, 24, 32\] px, but '.*' is of 48 px"):
        import_mit_tables(
            [write(file_32.with_name("48.yaml"), {"Conv-input:48x48x3-output:24x24x8": 1})], get_space("ofa-mbv3-tiny"), device="phone"
        )


def test_entries_that_fit_no_block_are_refused(small: MobileNetV3Space, tmp_path: Path) -> None:
    more = {**AT_32, "expanded_conv-input:16x16x8-output:8x8x16-expand:24-kernel:7-stride:2-idskip:0-se:0-hs:0": 5.0}
    with pytest.raises(TableError, match=r"1 of 9 are not, first 'expanded_conv-.*kernel:7.*'"):
        import_mit_tables([write(tmp_path / "more.yaml", more)], small, device="phone")


def test_blocks_that_are_not_there_are_counted(small: MobileNetV3Space, tmp_path: Path) -> None:
    fewer = {name: ms for name, ms in AT_32.items() if "kernel:5" not in name and "Logits" not in name}
    with pytest.raises(TableError, match=r"lacks 2 of 7, first inverted_residual 8->16 \(stages.0.0\) at 16 px"):
        import_mit_tables([write(tmp_path / "fewer.yaml", fewer)], small, device="phone")


def test_wrong_arguments_are_refused(small: MobileNetV3Space, file_32: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="both of 32 px"):
        import_mit_tables([file_32, file_32], small, device="phone")
    with pytest.raises(TableError, match="name at least one"):
        import_mit_tables([], small, device="phone")
    with pytest.raises(TableError, match="needs the name of a device"):
        import_mit_tables([file_32], small, device=" ")
    with pytest.raises(TableError, match="a batch of at least 1"):
        import_mit_tables([file_32], small, device="phone", batch=0)
    with pytest.raises(FileError, match="no such file"):
        import_mit_tables([tmp_path / "none.yaml"], small, device="phone")


FOLDER = os.environ.get("OFA_PUBLISHED")
PUBLISHED = Path(FOLDER or ".")
published = pytest.mark.skipif(FOLDER is None, reason="set OFA_PUBLISHED to the folder of published files")


@published
def test_the_published_note10_tables_sum_to_what_the_published_network_takes() -> None:
    space = get_space("ofa-mbv3-w1.2")
    arch = mit.arch_from_net_config(PUBLISHED / "net_config_note10_lat-30ms_top1-78.4_finetune-75.json", 224)
    files = {size: PUBLISHED / "note10_lookup_tables" / f"{size}_lookup_table.yaml" for size in (160, 192, 224)}
    alone = import_mit_tables([files[224]], space, device="note10")
    assert Estimator(space, alone)(arch).latency_ms == pytest.approx(29.97, abs=0.005)
    table = import_mit_tables(files.values(), space, device="note10")
    assert table.info.spaces == {"ofa-mbv3-w1.2": (160, 192, 224)}
    # The classifier was timed at all three sizes: 0.670, 0.665 and 0.656 ms.
    assert Estimator(space, table)(arch).latency_ms == pytest.approx(29.96, abs=0.005)


@published
def test_the_published_pixel1_table_fits_no_space() -> None:
    with pytest.raises(TableError, match=r"72 of 72 are not, first 'Conv-input:224x224x3-output:112x112x32'"):
        import_mit_tables([PUBLISHED / "pixel1_mobile_trim.yaml"], get_space("ofa-proxyless-w1.3"), device="pixel1")
