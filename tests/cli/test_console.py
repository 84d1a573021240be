from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ofa.arch import Arch
from ofa.cli import console as console_module
from ofa.cli.console import emit, format_bytes, format_count, format_ms, format_percent, progress_bar


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    arch = Arch("some-space", 32, ())
    emit({"latency_ms": np.float64(1.5), "macs": np.int64(3), "arch": arch}, json=True, render=lambda: pytest.fail("nobody looks"))
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"latency_ms": 1.5, "macs": 3, "arch": arch.to_json()}
    assert printed.err == ""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_not_printed(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit({"latency_ms": value}, json=True, render=lambda: "")
    assert capsys.readouterr().out == ""


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", "b")
    table.add_row("x" * 70, "y" * 70)
    emit({}, json=False, render=lambda: table)
    out = capsys.readouterr().out
    assert "x" * 70 in out
    assert "y" * 70 in out


def test_progress_in_a_log_is_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("train") as progress:
        for done in range(1, 101):
            progress(done, 100, "loss [1.5]")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "train 100/100 loss [1.5] (0 s)\n"


def test_slow_progress_in_a_log_says_what_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    with progress_bar("train") as progress:
        for done in range(1, 5):
            now = done * 6.0
            progress(done, 4)
    assert capsys.readouterr().err.splitlines() == ["train 2/4 (12 s, 12 s left)", "train 4/4 (24 s)"]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console_module, "console", Console(file=screen, force_terminal=True, width=120, color_system=None))
    with progress_bar("train") as progress:
        progress(0, 40)
        progress(40, 40, "loss [1.5]")
    shown = screen.getvalue()
    assert "train" in shown
    assert "40/40" in shown
    assert "loss [1.5]" in shown
    assert shown.count("0:00:00") >= 2  # elapsed and left


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_a_bar_keeps_its_numbers_where_the_terminal_is_narrow(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = io.StringIO(), 0.0
    monkeypatch.setattr(console_module, "console", Console(file=screen, force_terminal=True, width=width, get_time=lambda: now))
    with progress_bar("training ofa-mbv3-w1.0 with a name that is long") as progress:
        for done in range(1000, 1004):
            now += 10
            progress(done, 2003, "depth-1 3/25, cross entropy 1.234 (chance 2.303), 1,234 images/s")
    plain = Text.from_ansi(screen.getvalue().replace("\r", "\n")).plain
    lines = [line for line in plain.splitlines() if "1003/2003" in line]
    assert lines
    assert all(len(line) <= width for line in lines)
    assert "2:46:40" in lines[-1]
    assert "━" in lines[-1]
    assert lines[-1].startswith("tra")
    if width >= 60:
        assert "depth-1" in lines[-1]


def test_what_was_done_before_does_not_shorten_the_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    with progress_bar("train") as progress:
        for done in range(101, 104):
            now += 12.0
            progress(done, 110)
    assert capsys.readouterr().err.splitlines()[1:] == ["train 102/110 (24 s, 96 s left)", "train 103/110 (36 s, 84 s left)"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (format_ms(12.345), "12.3 ms"),
        (format_ms(0.0123), "0.012 ms"),
        (format_ms(0), "0.00 ms"),
        (format_ms(1234.5), "1234 ms"),
        (format_ms(99.97), "100 ms"),
        (format_bytes(512), "512 B"),
        (format_bytes(2 * 1024**2), "2.00 MiB"),
        (format_bytes(300_000), "293 KiB"),
        (format_bytes(5 * 1024**4), "5120 GiB"),
        (format_count(999), "999"),
        (format_count(230_000_000), "230 M"),
        (format_count(5_477_000), "5.48 M"),
        (format_count(2 * 10**19), "2.00e+19"),
        (format_percent(0.975), "97.5 %"),
    ],
)
def test_numbers_carry_their_units(shown: str, expected: str) -> None:
    assert shown == expected
