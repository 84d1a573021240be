"""A device with a table of each precision, and losses, that are computed from the arch: int8 is faster where blocks are large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices import Device
from latency_tables.info import TableInfo
from ofa.arrays import Rows
from ofa.space import Space
from search.precisions.joining import joined
from search.problem import Problem
from tests.search.fakes import SMALL, SPACE, FakeAccuracy, FakeLatency


class TwinLatency(FakeLatency):
    """The latencies of a device in one precision; those in int8 are shorter for networks that take long."""

    def __init__(self, device: str = "pi", precision: str = "fp32", processor: str | None = None, **fields: Any) -> None:
        super().__init__(SPACE, device=device)
        self._about = {"runtime": "fake", "precision": precision, **fields}
        self._processor = processor

    @property
    def info(self) -> TableInfo:
        return TableInfo(device=Device(name=self.device_name, **self._about).to_json(), runtime_version="1", processor=self._processor)

    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[NDArray[np.float64], ...]:
        found = super().estimates_of_rows(rows_NC)
        return tuple(0.2 + 0.45 * each for each in found) if self._about["precision"] == "int8" else found


@dataclass(frozen=True)
class FakeLoss:
    """More is lost by networks of low resolution; some gain."""

    precision: str = "int8"
    space: Space = SPACE
    reach: float = 0.01

    @property
    def provenance(self) -> dict[str, Any]:
        return {"judging_images": 2000, "coverage": 0.9}

    def losses_of_rows(self, rows_NC: Rows, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return 0.02 - 0.015 * rows_NC[:, 0] + 0.001 * rows_NC[:, 1:].mean(axis=1), np.full(len(rows_NC), self.reach)


TWINS = (TwinLatency("pi"), TwinLatency("pi-int8", "int8", description="the same"))


def twin_problem(space: Space = SMALL, latencies: Sequence[Any] = TWINS, losses: Sequence[Any] = (FakeLoss(),), **settings: Any) -> Problem:
    parts = joined(space, FakeAccuracy(), latencies, losses)
    return Problem(space=parts.space, accuracy=parts.accuracy, latencies=parts.latencies, **settings)
