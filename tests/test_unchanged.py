"""The hashes that hold refactorings: the same twice, and a number that changed is reported."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.sources import ROOT

CHEAP = ["archs/ofa-mbv3-tiny", "costs-of-rows/ofa-proxyless-tiny", "estimates/ofa-mbv3-32px_local-cpu", "onnx"]


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("unchanged")
    for cached in (value for value in vars(module).values() if hasattr(value, "cache_clear")):
        cached.cache_clear()
    return module


def test_two_runs_agree(unchanged: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = tmp_path / "before.json"
    assert unchanged.main(["--only", *CHEAP, "--out", str(stored)]) == 0
    hashes = json.loads(stored.read_text())["hashes"]
    assert len(hashes) == 12
    assert len(set(hashes.values())) == len(hashes)
    assert unchanged.main(["--only", *CHEAP, "--against", str(stored)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"the same {name}" for name in hashes]


def test_a_number_that_changed_is_reported(
    unchanged: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, name = tmp_path / "before.json", "estimates/ofa-mbv3-32px_local-cpu"
    assert unchanged.main(["--only", name, "--out", str(stored)]) == 0
    rows_NC = unchanged.rows_of_table(unchanged.TABLES / "ofa-mbv3-32px_local-cpu.parquet")
    monkeypatch.setattr(unchanged, "rows_of_table", lambda _: np.roll(rows_NC, 1, axis=0))
    assert unchanged.main(["--only", name, "--against", str(stored)]) == 1
    assert capsys.readouterr().out.splitlines()[0] == f"differs  {name}"


def test_an_item_that_fails_is_no_success(
    unchanged: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> str:
        raise ImportError(f"{name} is somewhere else now")

    monkeypatch.setattr(unchanged, "archs", broken)
    assert unchanged.main(["--only", "archs/ofa-mbv3-tiny", "--out", str(tmp_path / "before.json")]) == 1
    assert "failed: ImportError: ofa-mbv3-tiny is somewhere else now" in capsys.readouterr().err
    assert unchanged.main(["--only", "archs/ofa-mbv3-tiny", "--against", str(tmp_path / "before.json")]) == 1
