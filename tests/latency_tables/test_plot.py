from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from devices import Conditions
from latency_tables.check import TableCheck, compare
from latency_tables.plot import draw_check, save_check_plot
from ofa.errors import FileError


def made(calibrated: bool) -> TableCheck:
    rng = np.random.default_rng(0)
    measured = rng.uniform(10, 40, 60)
    estimated = measured * np.exp(0.02 * rng.standard_normal(60))
    half = 0.04 if calibrated else np.nan
    columns = {"latency_ms": estimated, "latency_low_ms": estimated * (1 - half), "latency_high_ms": estimated * (1 + half)}
    return compare(pd.DataFrame({"arch": "{}", **columns, "measured_ms": measured, "first_ms": measured, "second_ms": measured * 1.01}))


@pytest.mark.parametrize("calibrated", [False, True])
def test_it_shows_every_network_and_says_the_figures(calibrated: bool) -> None:
    check = made(calibrated)
    figure = draw_check(check, title="a space on a device")
    (axes,) = figure.axes
    assert len(axes.lines[-1].get_xdata()) == 60
    title = axes.get_title(loc="left")
    assert title.startswith("a space on a device\nmean error 1.")
    assert "timed again 1.0 %" in title
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"within 5 %: {100 * check.within_5_percent:.1f} % of networks" in labels
    assert ("interval of the estimate" in labels) == calibrated


def test_it_says_what_was_measured_under() -> None:
    conditions = Conditions(batch=1, precision="fp32", threads=1, pause_ms=20.0, runtime="onnxruntime")
    (axes,) = draw_check(replace(made(True), conditions=conditions), title="a space").axes
    assert "batch 1, fp32, 1 thread, 20 ms of pause before each call, onnxruntime" in axes.get_title(loc="left")


def test_it_is_written_as_png(tmp_path: Path) -> None:
    save_check_plot(made(True), tmp_path / "check.png", title="x")
    content = (tmp_path / "check.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (900, 900)
    with pytest.raises(FileError):
        save_check_plot(made(True), tmp_path / "none" / "check.png", title="x")
