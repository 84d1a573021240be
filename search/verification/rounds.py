"""Rounds of measurements of a verified query: which networks to time next, which keep the budget, and which are dropped.

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
"""Networks timed in a round: at least ``_WIDTH``, and at least ``_BEYOND_TOP`` more than are asked for."""
_LEAST_REACH, _MOST_REACH = 0.01, 0.1
"""Bounds of the first round's distance from the budget, as a share; between them the table's interval decides."""
_NEAR = 0.01
"""Stop once the best network that keeps the budget uses at least 99 % of the allowed latency."""
_DEVIATIONS = 1.645  # standard deviations: half of a 90 % interval of a normal distribution


class Rounds:
    """Chooses the networks of each round and judges their measurements.

    Args:
        pool: networks that keep all other limits, best first; at least one.
        device: name of the device.
        calibration: correction of the device's table; None if it has none.
        budget_ms: upper limit of the latency on the device in ms; None without a limit.
        top: number of networks to return.
        margin: safety margin between budget and likely latency, as a share of the latency.

    Attributes:
        evidence: the measurements so far; add each round's to it.
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
        # Half width of the interval as a share; equal for all networks of a table.
        half = promised[0].latency_high_ms / promised[0].latency_ms - 1
        spread = 0.0 if calibration is None else calibration.speed_spread
        doubt = max(0.0, half - spread) / _DEVIATIONS if half > 0 else math.inf
        above, below = np.clip([half - spread, half] if half > 0 else [_MOST_REACH] * 2, _LEAST_REACH, _MOST_REACH)
        # A machine that is currently faster than usual does not raise the limit; a slower one lowers it.
        self._first_levels = (1 + above, 1 - below)
        self.evidence = Evidence(np.array([each.latency_ms for each in promised]), doubt=doubt)

    def next_networks(self) -> list[int]:
        """Indices of the next round's networks; empty if another round would hardly improve the answer."""
        timed, kept, likely_N = self.evidence.timed, self._keeping(), self.evidence.likely_ms
        if not timed:
            return list(range(self._top)) if self._budget_ms is None else self._around()
        fits_N = (likely_N <= self._most_ms) & ~np.isin(np.arange(len(self._pool)), timed)
        if len(kept) >= self._top:
            is_near = likely_N[kept[0]] >= (1 - _NEAR) * self._most_ms
            better = fits_N[: kept[self._top - 1]].any()
            return self._around() if better and not is_near else []
        # If no network keeps the budget, time the fastest: the error message states its latency.
        fastest = [] if kept else [int(np.argmin(likely_N))]
        more = fits_N.any() or not set(fastest) <= set(timed)
        return list(dict.fromkeys([*self._around(), *fastest])) if more else []

    def kept(self) -> tuple[TimedCandidate, ...]:
        """The best networks that keep the budget, at most ``top``, best first.

        Raises:
            ImpossibleBudgetError: no network that was timed keeps the budget.
        """
        keeping = self._keeping()
        if not keeping:
            raise self._impossible()
        return tuple(self._timed(i) for i in keeping[: self._top])

    def dropped(self) -> tuple[TimedCandidate, ...]:
        """The timed networks that break the budget."""
        return tuple(self._timed(i, self._reason(i)) for i in self.evidence.timed if i not in self._keeping())

    def found(self) -> tuple[TimedCandidate, ...]:
        """All timed networks."""
        return tuple(map(self._timed, self.evidence.timed))

    def _around(self) -> list[int]:
        """The best network below each of several levels around the allowed latency, or the fastest network if all are above."""
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
