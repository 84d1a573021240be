"""How many networks a search evaluates, and by which sampler."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.errors import SearchError, nearest
from ofa.storage_url import StorageUrl

__all__ = ["EVOLUTION", "SAMPLERS", "Effort", "Settings", "sampler_for"]

EVOLUTION = "evolution"
SAMPLERS = (EVOLUTION, "nsga2", "nsga3", "tpe", "gp", "random")
"""Names of the samplers: evolution in arrays, for computed accuracies and costs, and Optuna's own, of which ``nsga2`` is the fastest."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How many networks a search evaluates.

    Attributes:
        trials: number of finished trials of the study, including earlier ones and other workers'.
        evaluations: networks that the sampler ``evolution`` evaluates in arrays, in addition to the trials; 0 for Optuna's own samplers.
        islands: populations that the sampler ``evolution`` evolves separately.

    Raises:
        SearchError: fewer than 1 trial, 0 evaluations or 1 island.
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
        """Number of evaluated networks if none comes twice."""
        return self.trials + self.evaluations


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a search: the arguments of ``run_study``, with the sampler's name resolved."""

    seed: int
    effort: Effort
    sampler: str
    storage: StorageUrl | None
    name: str | None
    grace_s: int


def sampler_for(effort: Effort, name: str | None) -> str:
    """The name of the sampler; None is ``evolution`` if the effort has evaluations, else ``nsga2``.

    Raises:
        SearchError: no sampler has this name, ``evolution`` has no evaluations, or another sampler has some.
    """
    if name is None:
        return EVOLUTION if effort.evaluations else "nsga2"
    if name not in SAMPLERS:
        raise SearchError(f"'{name}' must be the name of a sampler; {nearest(name, SAMPLERS)}")
    if name == EVOLUTION and not effort.evaluations:
        raise SearchError(f"the sampler '{name}' must evaluate at least 1 network, but got 0 evaluations; give more, or another sampler")
    if name != EVOLUTION and effort.evaluations:
        raise SearchError(
            f"the sampler '{name}' evaluates trials only, but got {effort.evaluations} evaluations; give 0, or the sampler '{EVOLUTION}'"
        )
    return name
