"""Trials as a search sees them, wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

__all__ = ["Claim", "Look", "Memory"]


@dataclass(frozen=True)
class Claim:
    """A trial that is this worker's to finish."""

    trial_id: int
    trial: FrozenTrial


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a ledger shows.

    Attributes:
        counted: trials that are finished, running or wait for another worker.
        finished: how many of them are finished.
        fresh: finished ones that were not seen yet and are not this worker's own.
    """

    counted: int
    finished: int
    fresh: Sequence[FrozenTrial]


class Memory:
    """The ledger of a search that is kept nowhere, see ``search.study.ledger``: every trial is this process's."""

    def __init__(self) -> None:
        self._claimed = 0
        self._finished = 0

    def finished(self) -> int:
        """How many trials are finished."""
        return self._finished

    def look(self) -> Look:
        """How many trials there are."""
        return Look(counted=self._claimed, finished=self._finished, fresh=())

    def claim(self, trials: Sequence[FrozenTrial], wanted: int) -> list[Claim | None]:
        """All of them."""
        self._claimed += len(trials)
        return [Claim(-1, trial) for trial in trials]

    def take(self, wanted: int) -> Claim | None:
        """None: nobody else could have died."""
        return None

    def finish(self, claim: Claim, told: FrozenTrial) -> None:
        """Count it."""
        self._finished += 1

    def give_up(self, claims: Sequence[Claim], *, again: bool) -> None:
        """Nothing: the search ends with this."""
