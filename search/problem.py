"""What a search is about: a space, the objectives, the hard limits, and how archs become numbers.

Shapes: N archs; every column is a float64 array [N].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ofa.arch import Arch
from ofa.blocks import PlacedBlock
from ofa.cost import costs
from ofa.errors import SearchError, nearest
from ofa.families import lower
from ofa.space import Space
from search.accuracy import AccuracySource
from search.budget import COLUMNS, COSTS, Budget, Columns
from search.pareto import Floats

__all__ = ["COLUMNS", "COSTS", "Archive", "Budget", "Columns", "LatencyEstimate", "LatencySource", "Problem"]


class LatencyEstimate(Protocol):
    """An expected latency and the interval that it holds in, in milliseconds; NaN for both ends if no interval is known."""

    @property
    def latency_ms(self) -> float:
        """The expected latency."""

    @property
    def low_ms(self) -> float:
        """The lower end of the interval."""

    @property
    def high_ms(self) -> float:
        """The upper end of the interval."""


class LatencySource(Protocol):
    """What estimates latency; ``latency_tables.LatencyTable`` is one."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Where the numbers come from, as JSON values; ``device`` is an object with a ``name``."""

    def estimate(self, space: Space, lowered: Sequence[PlacedBlock], /) -> LatencyEstimate:
        """The latency of a lowered network of ``space``."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What to search for.

    Attributes:
        space: the networks among which to search.
        accuracy: tells the accuracy of a network (to be made large).
        latency: tells the latency of a network on the device.
        budget: hard limits that every answer keeps.
        objectives: the costs to be traded against accuracy.

    Raises:
        SearchError: the accuracy source is of another space, or an objective is no cost.
    """

    space: Space
    accuracy: AccuracySource
    latency: LatencySource
    budget: Budget = field(default_factory=Budget)
    objectives: tuple[str, ...] = ("latency_ms",)

    def __post_init__(self) -> None:
        if self.accuracy.space_name != self.space.name:
            raise SearchError(
                f"accuracies must be of the space that is searched, but the space is {self.space.name} and they are of "
                f"{self.accuracy.space_name}; fit or train for {self.space.name}"
            )
        for name in self.objectives:
            if name not in COSTS:
                raise SearchError(f"an objective must be a cost, but got '{name}'; {nearest(name, COSTS)}")
        if not self.objectives:
            raise SearchError("a search must trade accuracy against a cost, but objectives is empty; name one, such as latency_ms")

    def evaluate(self, archs: Sequence[Arch], accuracies: Floats | None = None) -> dict[str, Floats]:
        """The columns of ``archs``.

        Args:
            archs: networks of the space.
            accuracies: theirs, where they are known; otherwise the accuracy source is asked once for all of them.

        Raises:
            SearchError: the accuracy source or the latency source answers what is no accuracy or latency.
        """
        rows = np.empty((len(archs), len(COLUMNS)))
        for row, arch in zip(rows, archs, strict=True):
            row[1:] = self._costs(arch)
        if archs:
            rows[:, 0] = self._checked(archs, self.accuracy(archs) if accuracies is None else accuracies)
        return dict(zip(COLUMNS, rows.T, strict=True))

    def _checked(self, archs: Sequence[Arch], accuracies: Floats) -> Floats:
        values = np.asarray(accuracies, dtype=np.float64)
        if values.shape != (len(archs),):
            raise SearchError(
                f"an accuracy source must answer one number a network, but {len(archs)} networks got an array of shape "
                f"{values.shape}; correct {type(self.accuracy).__name__}"
            )
        wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(wrong):
            raise SearchError(
                f"an accuracy must be a number in 0..1, but {type(self.accuracy).__name__} answers {values[wrong[0]]} for "
                f"{archs[wrong[0]].to_json()}; correct it and search again"
            )
        return values

    def _costs(self, arch: Arch) -> tuple[float, ...]:
        lowered = lower(self.space, arch)
        estimate = self.latency.estimate(self.space, lowered)
        interval = (float(estimate.latency_ms), float(estimate.low_ms), float(estimate.high_ms))
        if math.isnan(interval[1]) and math.isnan(interval[2]):
            # A table that was not calibrated knows no interval; then the expected latency is all there is to compare.
            interval = (interval[0],) * 3
        if not all(math.isfinite(ms) and ms > 0 for ms in interval):
            raise SearchError(
                f"a latency must be a positive number of milliseconds, but the estimate is {interval} for {arch.to_json()}; "
                "measure the table again"
            )
        counted = costs(lowered)
        return (*interval, *(float(counted[name]) for name in COSTS[3:]))


class Archive:
    """Everything that was evaluated, each network once; a second look costs a dictionary look-up.

    Args:
        problem: what evaluates the networks.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._index: dict[Arch, int] = {}
        self._rows: Floats = np.empty((0, len(COLUMNS)))

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, arch: Arch) -> bool:
        return arch in self._index

    @property
    def archs(self) -> tuple[Arch, ...]:
        """All networks, in the order in which they came."""
        return tuple(self._index)

    def columns(self) -> dict[str, Floats]:
        """The columns of all networks, in the order of ``archs``."""
        return self._columns(np.arange(len(self)))

    def evaluate(self, archs: Sequence[Arch]) -> dict[str, Floats]:
        """The columns of ``archs``, of which only the new ones are computed; errors as ``Problem.evaluate``, and then none is kept."""
        new = [arch for arch in dict.fromkeys(archs) if arch not in self._index]
        if new:
            self._add(new, self.problem.evaluate(new))
        return self._columns(np.array([self._index[arch] for arch in archs], dtype=np.intp))

    def recall(self, archs: Sequence[Arch], accuracies: Floats) -> None:
        """Take networks whose accuracies [N] are known from before; only their costs are computed."""
        first = {arch: i for i, arch in reversed(list(enumerate(archs))) if arch not in self._index}
        if first:
            self._add(list(first), self.problem.evaluate(list(first), accuracies[list(first.values())]))

    def _add(self, archs: Sequence[Arch], columns: Columns) -> None:
        self._rows = np.concatenate([self._rows, np.stack([columns[name] for name in COLUMNS], axis=1)])
        self._index.update({arch: len(self._index) + i for i, arch in enumerate(archs)})

    def _columns(self, index: np.ndarray[Any, np.dtype[np.intp]]) -> dict[str, Floats]:
        return dict(zip(COLUMNS, self._rows[index].T, strict=True))
