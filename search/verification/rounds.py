"""The rounds in which networks are timed to settle a budget: which are next, which keep it, and which are dropped.

Shape suffix: N networks of the front that keep the budget's other limits, best first.
"""

from __future__ import annotations

import math

import numpy as np

from latency_tables.correction import Correction
from ofa.latency import LATENCIES
from search.budget import at_device
from search.front.candidate import Candidate
from search.front.infeasible import ImpossibleBudgetError
from search.units import typed
from search.verification.answer import TimedCandidate
from search.verification.posterior import Evidence

__all__ = ["Rounds"]

_WIDTH, _BEYOND_TOP = 8, 3
"""Networks timed at once: so many, or so many more than are asked for."""
_LEAST_REACH, _MOST_REACH = 0.01, 0.1
"""How far from the budget the first ones are, as a share; between these the table's interval says it."""
_NEAR = 0.01
"""The best that keeps the budget may be so much faster than it could be, as a share, before another round is worth its time."""
_DEVIATIONS = 1.645  # of a normal distribution, between which the 90 % of a table's interval lie


class Rounds:
    """What is timed next, and what has come of it.

    Args:
        pool: networks that keep all other limits, best first; at least one.
        device: name of the device.
        calibration: of the device's table; None if it has none.
        budget_ms: the most that a network may take there; None for no limit.
        top: how many networks are asked for.
        margin: between the budget and what a network probably takes, as a share of the latter.

    Attributes:
        evidence: what was measured; add each round to it.
    """

    def __init__(
        self,
        pool: tuple[Candidate, ...],
        device: str,
        calibration: Correction | None,
        budget_ms: float | None,
        top: int,
        margin: float,
    ) -> None:
        self._pool, self._device, self._budget_ms = pool, device, budget_ms
        self._limit_ms = math.inf if budget_ms is None else budget_ms
        self._margin, self._most_ms = margin, self._limit_ms / (1 + margin)
        self._top = min(top, len(pool))
        promised = [candidate.latencies[device] for candidate in pool]
        # Half of the interval as a share: the same of all networks of a table.
        half = promised[0].latency_high_ms / promised[0].latency_ms - 1
        spread = 0.0 if calibration is None else calibration.speed_spread
        doubt = max(0.0, half - spread) / _DEVIATIONS if half > 0 else math.inf
        above, below = np.clip([half - spread, half] if half > 0 else [_MOST_REACH] * 2, _LEAST_REACH, _MOST_REACH)
        # A machine that is faster than usual at the moment allows nothing more, one that is slower allows less.
        self._first_levels = (1 + above, 1 - below)
        self.evidence = Evidence(np.array([each.latency_ms for each in promised]), doubt=doubt)

    def next_networks(self) -> list[int]:
        """The networks of the next round; none when another is not worth its time."""
        timed, kept, likely_N = self.evidence.timed, self._keeping(), self.evidence.likely_ms
        if not timed:
            return list(range(self._top)) if self._budget_ms is None else self._around()
        fits_N = (likely_N <= self._most_ms) & ~np.isin(np.arange(len(self._pool)), timed)
        if len(kept) >= self._top:
            is_near = likely_N[kept[0]] >= (1 - _NEAR) * self._most_ms
            better = fits_N[: kept[self._top - 1]].any()
            return self._around() if better and not is_near else []
        # What the fastest takes is worth knowing where nothing keeps the budget.
        fastest = [] if kept else [int(np.argmin(likely_N))]
        more = fits_N.any() or not set(fastest) <= set(timed)
        return list(dict.fromkeys([*self._around(), *fastest])) if more else []

    def kept(self) -> tuple[TimedCandidate, ...]:
        """The answer.

        Raises:
            ImpossibleBudgetError: no network that was timed keeps the budget.
        """
        keeping = self._keeping()
        if not keeping:
            raise self._impossible()
        return tuple(self._timed(i) for i in keeping[: self._top])

    def dropped(self) -> tuple[TimedCandidate, ...]:
        """What was timed and does not keep the budget."""
        return tuple(self._timed(i, self._reason(i)) for i in self.evidence.timed if i not in self._keeping())

    def found(self) -> tuple[TimedCandidate, ...]:
        """All that was timed."""
        return tuple(map(self._timed, self.evidence.timed))

    def _around(self) -> list[int]:
        """The best networks below each of some levels around what is allowed, or the fastest one where all are above."""
        highest, lowest = (1 + _LEAST_REACH, 1 - _LEAST_REACH) if self.evidence.timed else self._first_levels
        likely_N, chosen = self.evidence.likely_ms, list[int]()
        for level in np.linspace(highest, lowest, max(_WIDTH, self._top + _BEYOND_TOP)):
            below = np.flatnonzero(likely_N <= level * self._most_ms)
            chosen += [int(i) for i in below if i not in chosen][:1]
        return chosen or [int(np.argmin(likely_N))]

    def _keeping(self) -> list[int]:
        """The timed networks that keep the budget, best first."""
        likely_N = self.evidence.likely_ms
        slowest_ms = {i: max(self.evidence.measured_ms(i), self.evidence.typical_ms(i)) for i in self.evidence.timed}
        return [i for i, ms in slowest_ms.items() if likely_N[i] <= self._most_ms and ms <= self._limit_ms]

    def _timed(self, i: int, reason: str = "") -> TimedCandidate:
        return TimedCandidate(
            candidate=self._pool[i],
            device=self._device,
            budget_ms=self._budget_ms,
            times_ms=self.evidence.times_ms(i),
            typical_ms=self.evidence.typical_ms(i),
            likely_ms=float(self.evidence.likely_ms[i]),
            reason=reason,
        )

    def _reason(self, i: int) -> str:
        measured_ms, typical_ms, likely_ms = self.evidence.measured_ms(i), self.evidence.typical_ms(i), float(self.evidence.likely_ms[i])
        if measured_ms > self._limit_ms:
            return f"takes {measured_ms:.4g} ms"
        if typical_ms > self._limit_ms:
            return f"takes {measured_ms:.4g} ms now, and {typical_ms:.4g} ms at the machine's typical speed"
        return f"takes {measured_ms:.4g} ms and probably {likely_ms:.4g} ms, within {self._margin:.1%} of the budget"

    def _impossible(self) -> ImpossibleBudgetError:
        likely_N, slowdown = self.evidence.likely_ms, self.evidence.slowdown
        fastest = min(self.evidence.timed, key=lambda i: float(likely_N[i]))
        measured_ms = self.evidence.measured_ms(fastest)
        enough_ms = max(measured_ms, self.evidence.typical_ms(fastest), float(likely_N[fastest]) * (1 + self._margin))
        name = at_device(LATENCIES[0], self._device)
        speed = f" while the machine is {slowdown - 1:.0%} slower than usual" if slowdown > 1 + self._margin else ""
        return ImpossibleBudgetError(
            f"a budget must be one that some network keeps when it is timed, but of {len(self.evidence.timed)} of the front timed on "
            f"{self._device} none takes at most {typed(name, self._limit_ms)}: the fastest takes {measured_ms:.4g} ms{speed}; "
            f"allow {typed(name, enough_ms, up=True)}",
            {name: enough_ms},
            self._pool[fastest],
        )
