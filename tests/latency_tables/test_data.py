"""The tables that come with the project: each was measured on a real machine, and says which."""

from __future__ import annotations

from pathlib import Path

import pytest

import latency_tables
from devices import Device, get_device
from latency_tables import Estimator, LatencyTable
from ofa.families import get_space

TABLES = sorted((Path(latency_tables.__file__).parent / "data").glob("*.parquet"))


def test_there_are_some() -> None:
    assert {LatencyTable.load(path).info.device["runtime"] for path in TABLES} >= {"onnxruntime", "openvino", "pytorch"}


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_it_says_where_it_is_from_and_answers_for_its_space(path: Path) -> None:
    table = LatencyTable.load(path)
    device = Device.from_json(table.info.device)
    table.require_device(get_device(device.name))
    assert device.runtime != "fake"
    assert table.info.processor
    assert table.info.runtime_version
    assert table.info.failed == {}
    assert (table.rows["repeats"] >= 15).all()
    assert table.correction is not None
    assert len(table.info.networks) == table.correction.nets >= 20
    for name, resolutions in table.info.spaces.items():
        space = get_space(name)
        estimate = Estimator(space, table)(space.largest(resolutions[-1]))
        assert 0 < estimate.latency_low_ms < estimate.latency_ms < estimate.latency_high_ms
        assert path.stem == f"{name}_{device.name}"
