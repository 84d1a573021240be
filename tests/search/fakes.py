"""Accuracy and latency that are computed from the arch, so that a search has a truth to be compared with."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_tables import Estimate
from ofa.arch import Arch
from ofa.blocks import PlacedBlock
from ofa.families import get_space
from ofa.space import Space
from search.features import features
from search.problem import Problem

SPACE = get_space("ofa-mbv3-tiny")
"""Of real size: 222,264 networks."""

SMALL = SPACE.restrict(resolution=SPACE.resolutions[:1], kernel=[3, 5], expand=[3, 4])
"""Small enough to look at every network."""


class FakeAccuracy:
    """Saturating in MACs, with a preference of its own for each gene; counts what it is asked."""

    def __init__(self, space: Space = SPACE, *, noise: float = 0.0, seed: int = 7) -> None:
        # The full space: a network's accuracy must not depend on what it is compared with.
        self._space = get_space(space.name)
        self._weights = np.random.default_rng(seed).random(features(self._space, [self._space.smallest()]).shape[1]) * 0.02
        self._noise = noise
        self.asked: list[Arch] = []

    @property
    def space_name(self) -> str:
        return self._space.name

    @property
    def provenance(self) -> dict[str, Any]:
        return {"source": "fake"}

    def __call__(self, archs: Sequence[Arch], /) -> NDArray[np.float64]:
        self.asked += archs
        x_NF = features(self._space, archs)
        exact = 0.9 - np.exp(-(x_NF[:, :-1] @ self._weights[:-1] + 0.15 * (x_NF[:, -1] - 10)))
        if not self._noise:
            return np.asarray(exact)
        return np.asarray(exact + self._noise * np.array([_normal(arch) for arch in archs]))


def _normal(arch: Arch) -> float:
    """A random number that is always the same for the same network."""
    return float(np.random.default_rng(zlib.crc32(str(arch.to_json()).encode())).standard_normal())


class FakeLatency:
    """A part for each block and a part for its MACs; the interval is 5 % to either side, or unknown."""

    def __init__(self, *, half_width: float | None = 0.05) -> None:
        self._half_width = half_width

    @property
    def metadata(self) -> dict[str, Any]:
        return {"device": {"name": "paper"}, "calibration": self._half_width}

    def estimate(self, space: Space, lowered: Sequence[PlacedBlock], /) -> Estimate:
        ms = sum(0.01 + placed.block.macs(placed.input_size) / 1e6 / (1 + placed.block.out_channels / 64) for placed in lowered)
        if self._half_width is None:
            return Estimate(latency_ms=ms)
        return Estimate(latency_ms=ms, low_ms=ms * (1 - self._half_width), high_ms=ms * (1 + self._half_width))


def fake_problem(space: Space = SMALL, **settings: Any) -> Problem:
    return Problem(space=space, **{"accuracy": FakeAccuracy(space), "latency": FakeLatency(), **settings})


def every_arch(space: Space) -> list[Arch]:
    """All networks of a small space, each once."""
    rows = itertools.product(*(range(len(gene.values)) for gene in space.columns))
    archs = list(dict.fromkeys(map(space.decode, rows)))
    assert len(archs) == space.size
    return archs
