"""A budget settled on the device: networks near it are timed, those that break it are dropped, the best that keep it are the answer.

Shape suffix: N networks of the front that keep the budget's other limits, best first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from devices import Device, TimingPolicy
from latency_tables import Estimator, LatencyTable
from latency_tables.feedback import learn_from
from latency_tables.files import ModelFiles
from latency_tables.networks import PROCESSES, known_networks, time_beside
from latency_tables.table import require_same_device
from ofa.errors import SearchError
from ofa.progress import Progress, silent
from ofa.space import Space
from search.answer import TimedCandidate, VerifiedAnswer
from search.budget import LATENCIES, Bound, Budget, at_device
from search.evidence import Evidence
from search.front import Candidate, Front
from search.impossible import ImpossibleBudgetError
from search.renewal import renewed, with_verified
from search.verify import part_of

__all__ = ["query_verified"]

_WIDTH, _BEYOND_TOP = 6, 3
"""Networks timed at once: so many, or so many more than are asked for."""
_LEAST_REACH, _MOST_REACH = 0.01, 0.1
"""How far from the budget the first ones are, as a share; between these the table's interval says it."""
_NEAR = 0.015
"""The best that keeps the budget may be so much faster than it could be, as a share, before another round is worth its time."""
_DEVIATIONS = 1.645  # of a normal distribution, between which the 90 % of a table's interval lie


def query_verified(
    front: Front,
    space: Space,
    budget: Budget,
    device: Device,
    *,
    rng: np.random.Generator,
    table: LatencyTable | None = None,
    top: int = 1,
    processes: int = PROCESSES,
    most_rounds: int = 3,
    policy: TimingPolicy | None = None,
    progress: Progress = silent,
) -> VerifiedAnswer:
    """Find the best networks of a front that keep a budget when they are timed on the device.

    The most of the device's latency is held against what is measured; all other limits are kept by what the front says. Networks from
    somewhat above to somewhat below the budget are exported and timed in several processes, together with some that the table was
    calibrated by, which tell whether the machine is slower or faster than usual at the moment. What they say of the table shifts the
    estimates of all others, from which the next round is chosen, until there are ``top`` that keep the budget and none that is better
    is left, or the best is nearly as slow as it may be.

    Args:
        front: the front.
        space: of its networks.
        budget: limits; without one on this device's latency the best networks are timed, and none is dropped.
        device: one of the front's.
        rng: inputs and order of measurement.
        table: of the device; what is learned goes into a copy of it. The front's estimates are first brought to what it says.
        top: how many networks.
        processes: in which each round is timed.
        most_rounds: of measurements.
        policy: when a measurement is enough, of all processes together; the device room's default if None.
        progress: told how far the rounds are.

    Raises:
        SearchError: the device is none of the front's, a number is below 1, or the budget limits what the front does not know.
        TableError: the table or the front is of other settings of the device, or lacks blocks.
        ImpossibleBudgetError: no network of the front keeps the budget on the device, or its other limits on paper.
        DeviceError: the device cannot measure.
    """
    _check(front, device, table, {"top": top, "processes": processes, "most_rounds": most_rounds})
    if table is not None:
        front = renewed(front, space, Estimator(space, table))
    about: Mapping[str, Any] = front.metadata.get("latency", {}).get(device.name, {})
    budget_ms, others = _divided(budget, front.device_names, device.name)
    pool = front.query(others, len(front))
    settling = _Settling(pool, device.name, about.get("calibration"), budget_ms, top)
    known, rounds, evidence = known_networks(about, space), 0, settling.evidence
    with ModelFiles(device) as files:
        while rounds < most_rounds and (chosen := settling.next_networks()):
            archs = [pool[i].arch for i in chosen]
            part = part_of(progress, rounds, most_rounds)
            times = time_beside(known, space, archs, device, rng=rng, progress=part, policy=policy, processes=processes, files=files)
            evidence.add(chosen, times)
            rounds += 1
    progress(1, 1, f"timed {len(evidence.timed)} networks")
    kept, dropped, entries = settling.kept(), settling.dropped(), [found.noted() for found in settling.found()]
    learned = None
    if table is not None and known:
        typical_ms = {pool[i].arch: evidence.typical_ms(i) for i in evidence.timed}
        learned = learn_from(table, space, typical_ms, slowdown=evidence.slowdown)
    front = with_verified(front if learned is None else renewed(front, space, Estimator(space, learned)), entries)
    return VerifiedAnswer(
        device=device.name,
        budget_ms=budget_ms,
        margin=evidence.margin,
        kept=kept,
        dropped=dropped,
        slowdown=evidence.slowdown if known else None,
        rounds=rounds,
        table=learned,
        front=front,
    )


class _Settling:
    """What is timed next, and what came of it."""

    def __init__(
        self, pool: tuple[Candidate, ...], device: str, calibration: Mapping[str, Any] | None, budget_ms: float | None, top: int
    ) -> None:
        self._pool, self._device, self._budget_ms = pool, device, budget_ms
        self._limit_ms = math.inf if budget_ms is None else budget_ms
        self._top = min(top, len(pool))
        promised = [candidate.latencies[device] for candidate in pool]
        # Half of the interval as a share: the same of all networks of a table.
        half = promised[0].latency_high_ms / promised[0].latency_ms - 1
        spread = float((calibration or {}).get("speed_spread", 0.0))
        doubt = max(0.0, half - spread) / _DEVIATIONS if half > 0 else math.inf
        above, below = np.clip([half - spread, half] if half > 0 else [_MOST_REACH] * 2, _LEAST_REACH, _MOST_REACH)
        # A machine that is faster than usual at the moment allows nothing more, one that is slower allows less.
        self._first_levels = (1 + above, 1 - below)
        self.evidence = Evidence(np.array([each.latency_ms for each in promised]), doubt=doubt, speed_spread=spread)

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

    @property
    def _most_ms(self) -> float:
        """The most that the likely time of a network may be."""
        return self._limit_ms / (1 + self.evidence.margin)

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
        return f"takes {measured_ms:.4g} ms, and likely {likely_ms:.4g} ms, which is too near"

    def _impossible(self) -> ImpossibleBudgetError:
        likely_N, margin = self.evidence.likely_ms, self.evidence.margin
        fastest = min(self.evidence.timed, key=lambda i: float(likely_N[i]))
        measured_ms = self.evidence.measured_ms(fastest)
        enough_ms = max(measured_ms, self.evidence.typical_ms(fastest), float(likely_N[fastest]) * (1 + margin))
        name = f"{LATENCIES[0]}@{self._device}"
        return ImpossibleBudgetError(
            f"a budget must be one that some network keeps when it is timed, but of {len(self.evidence.timed)} of the front timed on "
            f"{self._device} none keeps {name} <= {self._limit_ms:g}: the fastest takes {measured_ms:.4g} ms; allow {enough_ms:.4g} ms",
            {name: enough_ms},
            self._pool[fastest],
        )


def _check(front: Front, device: Device, table: LatencyTable | None, numbers: Mapping[str, int]) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise SearchError(f"a verified query needs a '{name}' of at least 1, but got {number}; give 1 or more")
    if device.name not in front.device_names:
        raise SearchError(
            f"a front can be verified on a device whose latencies it knows, but it knows {', '.join(front.device_names) or 'none'} and not "
            f"{device.name}; name one of them, or search with a table of {device.name}"
        )
    if table is not None:
        table.require_device(device)
    settings = front.metadata.get("latency", {}).get(device.name, {}).get("device")
    if settings is not None:
        require_same_device(settings, device, "the table that the front was searched with")


def _divided(budget: Budget, devices: tuple[str, ...], device: str) -> tuple[float | None, Budget]:
    """The most that a network may take on the device, None for no limit, and the rest of the budget."""
    most_ms: list[float] = []
    others: dict[str, float | Bound | None] = {}
    for name, bound in budget.bounds.items():
        columns = {limit.column for limit in Budget({name: bound}).limits(devices)}
        if bound.most is None or not columns & {at_device(latency, device) for latency in LATENCIES}:
            others[name] = bound
            continue
        most_ms.append(bound.most)
        if bound.least is not None:
            others[name] = Bound(least=bound.least)
    return min(most_ms, default=None), Budget(others, expected_latency=budget.expected_latency)
