"""How much a search looks at, and by which sampler."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.errors import SearchError, nearest
from ofa.storage_url import StorageUrl

__all__ = ["EVOLUTION", "SAMPLERS", "Effort", "Settings", "sampler_for"]

EVOLUTION = "evolution"
SAMPLERS = (EVOLUTION, "nsga2", "nsga3", "tpe", "gp", "random")
"""The samplers by name: evolution by arrays, for numbers that are computed, and Optuna's own, of which ``nsga2`` is the fastest."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is looked at.

    Attributes:
        trials: of the study, those that it has already and those of other workers included.
        evaluations: networks that the sampler ``evolution`` evaluates by arrays, which are no trials; 0 for Optuna's own samplers.
        islands: populations that it evolves beside each other.

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
class Settings:
    """How a study is searched; arguments as of ``run_study``, with the sampler's name known."""

    seed: int
    effort: Effort
    sampler: str
    storage: StorageUrl | None
    name: str | None
    grace_s: int


def sampler_for(effort: Effort, name: str | None) -> str:
    """The name of the sampler; None is ``evolution`` where arrays evaluate networks, and else ``nsga2``.

    Raises:
        SearchError: there is none of this name, or the effort is not for it.
    """
    if name is None:
        return EVOLUTION if effort.evaluations else "nsga2"
    if name not in SAMPLERS:
        raise SearchError(f"'{name}' must be the name of a sampler; {nearest(name, SAMPLERS)}")
    if name == EVOLUTION and not effort.evaluations:
        raise SearchError(f"the sampler '{name}' must evaluate at least 1 network, but got 0 evaluations; give more, or another sampler")
    if name != EVOLUTION and effort.evaluations:
        raise SearchError(
            f"the sampler '{name}' evaluates nothing but trials, and got {effort.evaluations} evaluations; give 0, or '{EVOLUTION}'"
        )
    return name
