"""How much a search looks at, and by which sampler."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ofa.errors import SearchError, nearest

__all__ = ["SAMPLERS", "Counts", "Effort", "Share", "check_sampler"]

SAMPLERS = ("nsga2", "nsga3", "tpe", "gp", "random")
"""The samplers by name; ``nsga2`` is the fastest and the default."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is looked at.

    Attributes:
        trials: networks that Optuna proposes, those of a study that is resumed and those of other workers included.
        evaluations: networks that arrays evaluate besides, by evolution and in the neighbourhood of the front; they are no trials. 0 is the
            plain mode, for sources that measure each network: then Optuna alone proposes, one by one.
        islands: populations that evolve beside each other.

    Raises:
        SearchError: one of them is too small.
    """

    trials: int = 160
    evaluations: int = 200_000
    islands: int = 32

    def __post_init__(self) -> None:
        if self.trials < 1 or self.evaluations < 0 or self.islands < 1:
            raise SearchError(
                f"a study needs at least 1 trial, 0 evaluations and 1 island, but got {self.trials}, {self.evaluations} and "
                f"{self.islands}; try 160, 200000 and 32"
            )

    @property
    def total(self) -> int:
        """Networks looked at, if none comes twice."""
        return self.trials + self.evaluations


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was done.

    Attributes:
        trials: of the study that are finished.
        evolved: networks that evolution evaluated here.
        neighbours: networks evaluated here around the front.
        evaluated: different networks known here.
    """

    trials: int
    evolved: int
    neighbours: int
    evaluated: int

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of a search a worker does.

    Attributes:
        index: 0 .. workers - 1.
        workers: how many there are.
        entropy: beside the seed and the index, what the random choices depend on.
    """

    index: int = 0
    workers: int = 1
    entropy: tuple[int, ...] = (0,)

    def of(self, total: int) -> int:
        """This worker's part of a number."""
        return total // self.workers + (self.index < total % self.workers)


def check_sampler(name: str) -> None:
    """See that there is a sampler of this name.

    Raises:
        SearchError: there is none.
    """
    if name not in SAMPLERS:
        raise SearchError(f"'{name}' must be the name of a sampler; {nearest(name, SAMPLERS)}")
