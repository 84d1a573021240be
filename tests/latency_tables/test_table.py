from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from devices import Conditions, Device, TimingPolicy
from latency_tables import Correction, Estimator, LatencyTable, blocks_of_space, build_table
from latency_tables.info import MeasuredNetwork
from latency_tables.table import COLUMNS, SCHEMA_VERSION, block_key, row_key
from ofa.blocks import ConvBlock
from ofa.errors import FileError, TableError
from ofa.families import derive, get_space, lower
from ofa.space import Space
from tests.resealed import write_parquet

CORRECTION = Correction(intercept_ms=0.5, slope=2.0, half_width=0.1, coverage=0.9, nets=20, residuals=(0.01, -0.1))


def test_it_holds_all_blocks_of_the_space_with_their_statistics(table: LatencyTable, space: Space) -> None:
    assert len(table) == len(blocks_of_space(space))
    assert tuple(table.rows.columns) == COLUMNS
    assert (table.rows["median_ms"] > 0).all()
    assert set(table.rows["precision"]) == {"fp32"}
    assert all(placed in table for placed in lower(space, space.largest()))


def test_it_says_where_it_came_from(table: LatencyTable, space: Space, device: Device) -> None:
    assert Device.from_json(table.info.device) == device
    assert table.info.spaces == {space.name: space.resolutions}
    assert None not in (table.info.runtime_version, table.info.processor, table.info.date, table.info.ofa_version)


def test_a_saved_table_is_the_same_when_read(table: LatencyTable, space: Space, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    written = table.with_info(calibration=CORRECTION)
    written.save(path)
    read = LatencyTable.load(path)
    pd.testing.assert_frame_equal(read.rows, table.rows, check_dtype=False)
    assert read.info == written.info
    assert read.correction == CORRECTION
    lowered = lower(space, space.largest())
    assert read.estimate(space, lowered) == written.estimate(space, lowered)
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_of_squares_from_an_earlier_version_says_the_same(table: LatencyTable, space: Space, tmp_path: Path) -> None:
    table.save(tmp_path / "table.parquet")
    written = pq.read_table(tmp_path / "table.parquet")
    names = ["input_size_px" if name == "input_height_px" else name for name in written.column_names]
    squares = written.rename_columns(names).drop_columns("input_width_px").replace_schema_metadata(written.schema.metadata)
    write_parquet(squares, tmp_path / "old.parquet", schema=1, seal=None)
    old = LatencyTable.load(tmp_path / "old.parquet")
    pd.testing.assert_frame_equal(old.rows, table.rows, check_dtype=False)
    lowered = lower(space, space.smallest())
    assert old.estimate(space, lowered) == table.estimate(space, lowered)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_table_holds_blocks_of_any_height_and_width(channels: int, device: Device, quick: TimingPolicy, tmp_path: Path) -> None:
    space = derive(get_space("ofa-mbv3-tiny"), "wide", resolutions=[(16, 24), (24, 16), 20], in_channels=channels)
    build_table(space, device, rng=np.random.default_rng(0), policy=quick).save(tmp_path / "table.parquet")
    table = LatencyTable.load(tmp_path / "table.parquet")
    assert len(table) == len(blocks_of_space(space))
    rng, estimator = np.random.default_rng(1), Estimator(space, table)
    for arch in [space.sample(rng) for _ in range(10)]:
        lowered = lower(space, arch)
        assert estimator(arch).latency_ms == pytest.approx(sum(table.latency_ms(placed) for placed in lowered))


def test_rows_go_to_csv(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.csv")
    assert list(pd.read_csv(tmp_path / "table.csv").columns) == list(COLUMNS)


def test_a_key_is_the_same_for_equal_blocks_and_another_for_others() -> None:
    block = ConvBlock(in_channels=3, out_channels=8, kernel=3, stride=2)
    assert block_key(block) == block_key(ConvBlock(stride=2, kernel=3, out_channels=8, in_channels=3))
    assert block_key(block) != block_key(ConvBlock(in_channels=3, out_channels=8, kernel=3, stride=1))
    # Written out: keys in files of users must never change silently.
    assert block_key(block) == (
        '{"activation":"relu","in_channels":3,"kernel":3,"kind":"conv","norm_eps":1e-05,"out_channels":8,"stride":2}'
    )


def test_an_estimate_is_the_corrected_sum_over_blocks(table: LatencyTable, space: Space) -> None:
    lowered = lower(space, space.sample(np.random.default_rng(0)))
    total = sum(float(table.rows.set_index(["block", "input_height_px", "input_width_px"]).loc[row_key(p), "median_ms"]) for p in lowered)
    plain = table.estimate(space, lowered)
    assert plain.latency_ms == pytest.approx(total, rel=1e-12)
    assert not plain.has_interval
    corrected = table.with_info(calibration=CORRECTION).estimate(space, lowered)
    assert corrected.latency_ms == pytest.approx(0.5 + 2 * total)
    assert (corrected.latency_low_ms, corrected.latency_high_ms) == pytest.approx((0.9 * corrected.latency_ms, 1.1 * corrected.latency_ms))


def test_the_estimator_agrees_with_the_table(table: LatencyTable, space: Space) -> None:
    estimator = Estimator(space, table)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(50)]
    expected = [table.estimate(space, lower(space, arch)).latency_ms for arch in archs]
    np.testing.assert_allclose(estimator.latencies_ms(archs), expected, rtol=1e-12)


def test_missing_blocks_are_counted_and_the_command_that_measures_them_is_named(table: LatencyTable, tmp_path: Path) -> None:
    other = get_space("ofa-mbv3-tiny", num_classes=7)
    with pytest.raises(TableError) as caught:
        Estimator(other, table)(other.largest())
    message = str(caught.value)
    assert "lacks 1 of 11, first classifier" in message
    assert "ofa table build --space ofa-mbv3-tiny --device fake --resolutions 32 --classes 7 --resume" in message
    with pytest.raises(TableError, match="lacks 1 of 11"):
        table.estimate(other, lower(other, other.largest()))


def test_resuming_measures_only_what_is_missing(space: Space, device: Device, quick: TimingPolicy) -> None:
    rng = np.random.default_rng(0)
    small, large = space.resolutions[0], space.resolutions[-1]
    first = build_table(space, device, resolutions=[small], rng=rng, policy=quick)
    marked = LatencyTable(
        first.rows.assign(p90_ms=123.0),
        dataclasses.replace(first.info, calibration=CORRECTION, networks=(MeasuredNetwork(arch=space.smallest(), measured_ms=1.0),)),
    )
    both = build_table(space, device, resolutions=[small, large], rng=rng, policy=quick, resume_from=marked)
    assert (both.rows["p90_ms"] == 123.0).sum() == len(first)
    assert len(both) == len(blocks_of_space(space, [small, large]))
    assert both.info.spaces == {space.name: (small, large)}
    assert both.correction is None, "a correction learned at other resolutions must not be applied to new ones"
    assert both.info.networks == ()
    again = build_table(space, device, resolutions=[small], rng=rng, policy=quick, resume_from=marked)
    assert again.correction == CORRECTION
    assert len(again) == len(first)


def test_a_table_of_another_device_is_not_continued(table: LatencyTable, space: Space, device: Device) -> None:
    with pytest.raises(TableError, match="the threads of the table is 1"):
        build_table(space, Device(name="fake", runtime="fake", threads=2), rng=np.random.default_rng(0), resume_from=table)
    with pytest.raises(TableError, match="runtime version is '0'"):
        build_table(space, device, rng=np.random.default_rng(0), resume_from=table.with_info(runtime_version="0"))


def test_a_table_is_of_the_pauses_it_was_measured_with(table: LatencyTable, space: Space, device: Device, tmp_path: Path) -> None:
    pausing = dataclasses.replace(device, pause_ms=2.0)
    assert table.conditions == Conditions.of(device, runtime_version="1") == table.info.conditions
    with pytest.raises(TableError, match=r"the pause_ms of the table is 0\.0 and of device 'fake' 2\.0"):
        table.require_device(pausing)
    policy = TimingPolicy(min_rounds=2, max_rounds=2)
    part = build_table(space, pausing, resolutions=[16], rng=np.random.default_rng(0), policy=policy)
    assert part.conditions.pause_ms == 2.0
    part.save(tmp_path / "table.parquet")
    assert LatencyTable.load(tmp_path / "table.parquet").conditions == part.conditions
    with pytest.raises(TableError, match=r"the pause_ms of the table is 2\.0 and of device 'fake' 0\.0"):
        build_table(space, device, rng=np.random.default_rng(0), resume_from=part)


def test_a_table_from_before_there_were_pauses_is_of_calls_in_a_row(table: LatencyTable, device: Device) -> None:
    fields = {key: value for key, value in table.info.device.items() if key not in ("pause_ms", "opset")}
    old = table.with_info(device=fields)
    old.require_device(device)
    assert old.conditions == table.conditions
    with pytest.raises(TableError, match="pause_ms"):
        old.require_device(dataclasses.replace(device, pause_ms=20.0))


def test_files_that_are_no_tables_are_refused_in_a_sentence(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "good.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:-100])
    (tmp_path / "text.parquet").write_text("latency")
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    written = pq.read_table(tmp_path / "good.parquet")
    write_parquet(written, tmp_path / "newer.parquet", schema=SCHEMA_VERSION + 1)
    words = {
        "cut": "damaged",
        "text": "damaged",
        "empty": "damaged",
        "other": "must be a latency table, but is another Parquet file",
        "newer": f"must have schema {SCHEMA_VERSION} or older",
        "none": "no such file",
    }
    for name, expected in words.items():
        with pytest.raises(TableError, match=expected) as caught:
            LatencyTable.load(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_metadata_that_is_incomplete_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    parquet = pa.Table.from_pandas(table.rows, preserve_index=False)
    for content in (b"{}", b"no json", json.dumps({"schema_version": 1}).encode()):
        pq.write_table(parquet.replace_schema_metadata({b"ofa_latency_table": content}), tmp_path / "bare.parquet")
        with pytest.raises(TableError, match=r"bare\.parquet"):
            LatencyTable.load(tmp_path / "bare.parquet")


def test_rows_are_checked(table: LatencyTable) -> None:
    with pytest.raises(TableError, match="lacks median_ms"):
        LatencyTable(table.rows.drop(columns="median_ms"), table.info)
    with pytest.raises(TableError, match="once"):
        LatencyTable(pd.concat([table.rows, table.rows.iloc[:1]]), table.info)


def test_a_folder_that_is_not_there_leaves_nothing(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        table.save(tmp_path / "none" / "table.parquet")
    assert list(tmp_path.iterdir()) == []
