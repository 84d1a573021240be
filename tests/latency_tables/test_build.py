"""A build that is cut off, crashes, or meets another one."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from devices import Device, TimingPolicy
from latency_tables import Journal, LatencyTable, blocks_of_space, build_table
from latency_tables.onnx_files import ModelFiles
from ofa.errors import DeviceError, FileError, TableError
from ofa.progress import silent
from ofa.space import Space

SMALL_GROUPS = TimingPolicy(min_rounds=5, max_rounds=5, group_size=10)


def build(space: Space, device: Device, journal: Journal | None = None, resume_from: LatencyTable | None = None) -> LatencyTable:
    rng = np.random.default_rng(0)
    return build_table(space, device, rng=rng, policy=SMALL_GROUPS, journal=journal, resume_from=resume_from)


def test_a_build_writes_every_block_at_once(space: Space, device: Device, tmp_path: Path) -> None:
    with Journal(tmp_path / "t.parquet") as journal:
        table = build(space, device, journal)
        assert len(journal.rows) == len(table) == len(blocks_of_space(space))
        lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
        assert lines[0]["origin"]["device"]["name"] == lines[1]["origin"]["device"]["name"] == "fake"
        assert [line["row"] for line in lines[2:]] == journal.rows
        journal.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_was_cut_off_goes_on_where_it_was(
    space: Space, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(space, device)
    path = tmp_path / "t.parquet"
    with Journal(path) as journal:
        monkeypatch.setattr(journal, "add", _until(journal, 25))
        with pytest.raises(KeyboardInterrupt):
            build(space, device, journal)
    monkeypatch.undo()
    with Journal(path, resume=True) as journal:
        assert len(journal.rows) == 25
        kept = [dict(row) for row in journal.rows]
        table = build(space, device, journal)
        assert journal.rows[:25] == kept, "what was measured is not measured again"
        assert len(journal.rows) == len(whole)
    keys = ["block", "input_height_px", "input_width_px"]
    assert table.rows.sort_values(keys)["median_ms"].tolist() == pytest.approx(whole.rows.sort_values(keys)["median_ms"].tolist())


def _until(journal: Journal, rows: int) -> object:
    plain = journal.add

    def add(row: dict[str, object]) -> None:
        if len(journal.rows) >= rows:
            raise KeyboardInterrupt
        plain(row)

    return add


def test_a_build_that_an_earlier_version_began_goes_on(space: Space, device: Device, tmp_path: Path) -> None:
    small = space.restrict(resolution=[16], depth=[0], kernel=[3], expand=[3])
    path = tmp_path / "t.parquet"
    with Journal(path) as journal:
        table = build(small, device, journal)
    text = re.sub(r'"crc": "\w{8}", ', "", journal.path.read_text())
    journal.path.write_text(re.sub(r'"input_height_px": (\d+), "input_width_px": \d+', r'"input_size_px": \1', text))
    with Journal(path, resume=True) as journal:
        assert build(small, device, journal).rows.equals(table.rows)
        assert len(journal.rows) == len(table)


def test_a_line_that_was_written_half_is_measured_again(space: Space, device: Device, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with Journal(path) as journal:
        build(space, device, journal)
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-30])
    with Journal(path, resume=True) as again:
        assert len(again.rows) == len(blocks_of_space(space)) - 1
        assert len(build(space, device, again)) == len(blocks_of_space(space))
    assert all(json.loads(line) for line in again.path.read_text().splitlines())


def test_a_damaged_line_costs_its_row_and_no_other(space: Space, device: Device, tmp_path: Path) -> None:
    """Also where it says where the rows were measured: that stands there twice, and rows are of no use without it."""
    path = tmp_path / "t.parquet"
    with Journal(path) as journal:
        table = build(space, device, journal)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    for number in (0, 1, 2, 40, len(lines) - 1):
        line = lines[number]
        journal.path.write_bytes(b"".join([*lines[:number], line[:50] + bytes([line[50] ^ 1]) + line[51:], *lines[number + 1 :]]))
        with Journal(path, resume=True) as again:
            assert (len(again.rows), again.damaged) == (len(table) - (number >= 2), 1)
            assert len(build(space, device, again)) == len(table)
    journal.path.write_bytes(b"".join([b"x\n", b"y\n", *lines[2:]]))
    damaged = r"need their origin, but its lines in .* are damaged; begin anew with --overwrite"
    with pytest.raises(TableError, match=damaged), Journal(path, resume=True):
        pass
    with Journal(path, overwrite=True) as anew:
        assert not anew.rows


def test_a_journal_is_not_passed_over(space: Space, device: Device, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with Journal(path) as journal:
        build(space, device, journal)
    with pytest.raises(TableError, match=r"holds \d+ blocks of one; add --resume"), Journal(path):
        pass
    with pytest.raises(TableError, match="the threads of"), Journal(path, resume=True) as journal:
        build(space, Device(name="fake", runtime="fake", threads=2), journal)


def test_a_journal_goes_on_from_a_table(space: Space, device: Device, tmp_path: Path) -> None:
    small = build_table(space, device, resolutions=[16], rng=np.random.default_rng(0), policy=SMALL_GROUPS)
    with Journal(tmp_path / "t.parquet", resume=True) as journal:
        table = build(space, device, journal, small)
        assert len(journal.rows) == len(table) - len(small)


def test_two_builders_on_one_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    code = (
        f"import time\nfrom latency_tables import Journal\nwith Journal({str(path)!r}):\n    print('there', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        with pytest.raises(FileError, match="one writer at a time"), Journal(path):
            pass
    finally:
        other.kill()
        other.communicate()
    with Journal(path):
        pass  # the lock of a process that was killed holds nobody


def file_of_a_block(space: Space, device: Device) -> str:
    """The name, which is its content's hash, under which a device gets one of the blocks."""
    with ModelFiles(device) as files:
        return files.write({"it": (blocks_of_space(space)[20],)}, silent)["it"].name


@pytest.mark.parametrize("failure", ["error", "crash"])
def test_blocks_that_fail_are_reported_and_the_others_kept(space: Space, failure: str, tmp_path: Path) -> None:
    plain_device = Device(name="fake", runtime="fake")
    plain = build(space, plain_device)
    device = Device(name="fake", runtime="fake", options=(("failure", failure), ("failing", file_of_a_block(space, plain_device))))
    with Journal(tmp_path / "t.parquet") as journal:
        table = build(space, device, journal)
    failed = table.info.failed
    (reason,) = failed.values()
    assert ("and did" if failure == "error" else "died with status 86") in reason
    assert len(table) == len(plain) - 1
    expected = {(row.block, row.input_height_px): row.median_ms for row in plain.rows.itertuples()}
    assert all(row.median_ms == pytest.approx(expected[row.block, row.input_height_px]) for row in table.rows.itertuples())


def test_a_device_that_cannot_be_reached_keeps_what_there_is(
    space: Space, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devices import Local

    plain, starts = Local.start, 0

    def start(self: Local) -> object:
        nonlocal starts
        starts += 1
        if starts > 2:  # one for the description, one for the first groups
            raise DeviceError("gone")
        return plain(self)

    monkeypatch.setattr(Local, "start", start)
    crashing = Device(name="fake", runtime="fake", options=(("failure", "crash"), ("failing", file_of_a_block(space, device))))
    with pytest.raises(DeviceError, match="gone"), Journal(tmp_path / "t.parquet") as journal:
        build(space, crashing, journal)
    with Journal(tmp_path / "t.parquet", resume=True) as journal:
        assert journal.origin is not None


def test_killing_the_command_loses_only_the_group_in_hand(space: Space, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    command = [sys.executable, "-m", "ofa", "table", "build", "--space", "ofa-proxyless-w1.3", "--device", "fake", "-o", str(path)]
    process = subprocess.Popen([*command, "--resolutions", "128"], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    journal = Path(f"{path}.journal")
    end = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count('"row"') > 20):
        assert process.poll() is None, "it must not end before it is killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = journal.read_text().count('"row"')
    with Journal(path, resume=True) as kept:
        assert len(kept.rows) >= done - 1
        assert all(json.loads(row["block"]) for row in kept.rows)
    assert not path.exists()


def test_a_table_is_not_continued_on_another_card(space: Space, device: Device) -> None:
    table = build(space, device)
    elsewhere = table.with_info(gpu="another card")
    with pytest.raises(TableError, match="its gpu is 'another card' and here it is None; build a new table"):
        build(space, device, resume_from=elsewhere)


def test_blocks_are_written_in_the_devices_opset(space: Space, device: Device) -> None:
    placed = blocks_of_space(space, [16])[0]
    with ModelFiles(dataclasses.replace(device, opset=17)) as files:
        (path,) = files.write({"a block": (placed,)}, silent).values()
        model = onnx.load(path)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
