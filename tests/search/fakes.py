"""Accuracy and latency that are computed from the arch, so that a search has a truth to be compared with."""

from __future__ import annotations

import itertools
import os
import time
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_tables.info import TableInfo
from ofa.arch import Arch
from ofa.arrays import Rows
from ofa.families import get_space
from ofa.inventory import inventory_of
from ofa.lookup import AdditiveTable
from ofa.row_costs import costs_of
from ofa.space import Space
from search.problem import Problem

SPACE = get_space("ofa-mbv3-tiny")
"""Of real size: 222,264 networks."""

SMALL = SPACE.restrict(resolution=SPACE.resolutions[:1], kernel=[3, 5], expand=[3, 4])
"""Small enough to look at every network."""

TINY = SPACE.restrict(resolution=SPACE.resolutions[:2], depth=[0])
"""Smaller still: for the truth to be known in no time."""


class FakeAccuracy:
    """Saturating in MACs, with a preference of its own for each gene; counts what it is asked."""

    def __init__(self, space: Space = SPACE, *, noise: float = 0.0, seed: int = 7) -> None:
        # The full space: a network's accuracy must not depend on what it is compared with.
        self.space = get_space(space.name)
        cardinalities = self.space.cardinalities
        self._worth_CV = np.random.default_rng(seed).random((len(cardinalities), int(cardinalities.max()))) * 0.02
        self._noise = noise
        self.asked: list[Arch] = []

    @property
    def provenance(self) -> dict[str, Any]:
        return {"source": "fake"}

    def __call__(self, archs: Sequence[Arch], /) -> NDArray[np.float64]:
        return self.of_rows(self.space.encode_all(archs))

    def of_rows(self, rows_NC: Rows, /) -> NDArray[np.float64]:
        self.asked += [self.space.decode(row) for row in rows_NC.tolist()]
        worth_N = np.where(self.space.active(rows_NC), self._worth_CV[np.arange(rows_NC.shape[1]), rows_NC], 0).sum(axis=1)
        macs_N = costs_of(self.space)(rows_NC, ["macs"])["macs"]
        exact = 0.9 - np.exp(-(worth_N + 0.15 * (np.log(macs_N) - 10)))
        if not self._noise:
            return np.asarray(exact)
        return np.asarray(exact + self._noise * np.array([_normal(row) for row in rows_NC.tolist()]))

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        accuracy_N = self.of_rows(rows_NC)
        return accuracy_N - 0.01, accuracy_N + 0.01


def _normal(row: list[int]) -> float:
    """A random number that is always the same for the same network."""
    return float(np.random.default_rng(zlib.crc32(str(row).encode())).standard_normal())


class FakeLatency:
    """A part for each block and a part for its MACs; the interval is 5 % to either side, or unknown."""

    has_energy = False
    is_measured = False

    def __init__(self, space: Space = SPACE, *, half_width: float | None = 0.05, device: str = "paper", wide: float = 64) -> None:
        self.space = get_space(space.name)
        self.device_name = device
        self._half_width = half_width
        self._wide = wide

    @property
    def info(self) -> TableInfo:
        device = {"name": self.device_name, "batch": 1, "precision": "fp32"}
        return TableInfo(device=device, runtime_version=None, note=f"half width {self._half_width}")

    @cached_property
    def _sum_ms(self) -> AdditiveTable:
        inventory = inventory_of(self.space)
        ms = [0.01 + p.block.macs(p.input) / 1e6 / (1 + p.block.out_channels / self._wide) for p in inventory.blocks]
        return AdditiveTable(self.space, inventory, np.array(ms))

    def estimates_of_rows(self, rows_NC: Rows, /) -> tuple[NDArray[np.float64], ...]:
        ms_N = self._sum_ms(rows_NC)
        width = 0.0 if self._half_width is None else self._half_width
        return ms_N, ms_N * (1 - width), ms_N * (1 + width)

    def energies_of_rows(self, rows_NC: Rows, /) -> NDArray[np.float64]:
        raise NotImplementedError


def fake_problem(space: Space = SMALL, **settings: Any) -> Problem:
    return Problem(space=space, **{"accuracy": FakeAccuracy(space), "latencies": [FakeLatency(space)], **settings})


class SlowAccuracy(FakeAccuracy):
    """Takes as long as a measurement, and writes down which process begins and ends one; picklable in parts, so that workers find it."""

    def __init__(self, log: str, *, seconds: float = 0.05, nan: bool = False) -> None:
        super().__init__(SMALL)
        self._log = Path(log)
        self._seconds = seconds
        self._nan = nan
        self._known: dict[bytes, float] = {}

    def of_rows(self, rows_NC: Rows, /) -> NDArray[np.float64]:
        return np.array([self._measured(row_C) for row_C in rows_NC])

    def recall(self, rows_NC: Rows, values_N: NDArray[np.float64], /) -> None:
        self._known.update(zip((row_C.tobytes() for row_C in rows_NC), values_N.tolist(), strict=True))

    def _measured(self, row_C: Rows) -> float:
        key = row_C.tobytes()
        if key not in self._known:
            self._write("begins", row_C)
            time.sleep(self._seconds)
            self._known[key] = float("nan") if self._nan else float(super().of_rows(row_C[None])[0])
            self._write("ends", row_C)
        return self._known[key]

    def _write(self, what: str, row_C: Rows) -> None:
        with self._log.open("a") as file:
            file.write(f"{os.getpid()} {what} {''.join(map(str, row_C.tolist()))}\n")


def slow_problem(log: str, seconds: float = 0.05, nan: bool = False) -> Problem:
    """For several processes: ``functools.partial`` of it is what each makes its problem by."""
    return fake_problem(accuracy=SlowAccuracy(log, seconds=seconds, nan=nan))


def every_arch(space: Space) -> list[Arch]:
    """All networks of a small space, each once."""
    rows = itertools.product(*(range(len(gene.values)) for gene in space.columns))
    archs = list(dict.fromkeys(map(space.decode, rows)))
    assert len(archs) == space.size
    return archs
