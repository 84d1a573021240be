"""``ofa demo``: the whole road, for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from ofa.exporting.bundle import load_bundle
from search.front.front import Front


@pytest.mark.slow
def test_the_demo_walks_the_whole_road(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "ofa", "demo", "-o", folder, "--json"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["results"]) == 3
    for result in report["results"]:
        assert result["accuracy"] > 0.9
        assert result["difference"] < 1e-4
        assert result["measured_ms"] == pytest.approx(result["latency_ms"], rel=0.5)
        bundle = load_bundle(result["bundle"])
        assert bundle.card.measured_ms == result["measured_ms"]
        onnx.checker.check_model(str(bundle.onnx_path), full_check=True)
    assert len(Front.load(folder / "front.parquet")) == report["front"]["networks"]
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
