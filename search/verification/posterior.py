"""Posterior of latencies on a device: the table's estimates of all networks, updated with measurements of some.

Shape suffixes: N networks, P processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from latency_tables.timing import NetworkTimes
from ofa.arrays import Floats

__all__ = ["Evidence"]

_MEDIAN = math.sqrt(math.pi / 2)  # standard error of a median, over that of a mean
_MAD = 1.4826  # standard deviation over median absolute deviation, of a normal distribution
_LEAST_DOUBT = 1e-4


class Evidence:
    """Measurements so far, combined with the table's estimates.

    Choosing the network that just meets the budget favours lucky measurements (winner's curse). So measurement and table estimate are
    combined by inverse variance, after the bias that the table has in common for networks of similar latency is removed.

    Args:
        estimates_ms: the table's estimates in ms; [N].
        doubt: standard deviation of a network's true latency around its bias-corrected estimate, as a share; infinite if nothing is known.
    """

    def __init__(self, estimates_ms: Floats, *, doubt: float) -> None:
        self._estimates_N = estimates_ms
        self._doubt = max(doubt, _LEAST_DOUBT)
        self._raw: dict[int, list[float]] = {}
        self._typical: dict[int, list[float]] = {}
        self._slowdowns: list[float] = []

    def add(self, networks: Sequence[int], times: NetworkTimes) -> None:
        """Add measurements; further processes of a network that was timed before count together with its earlier ones."""
        for number, network in enumerate(networks):
            self._raw.setdefault(network, []).extend(times.raw_ms[:, number].tolist())
            self._typical.setdefault(network, []).extend(times.times_PN[:, number].tolist())
        self._slowdowns.extend(times.slowdowns)

    @property
    def timed(self) -> tuple[int, ...]:
        """Indices of the timed networks, ascending."""
        return tuple(sorted(self._raw))

    def times_ms(self, network: int) -> tuple[float, ...]:
        """Measured latency of a timed network in ms, by process."""
        return tuple(self._raw[network])

    def measured_ms(self, network: int) -> float:
        """Median measured latency of a timed network in ms."""
        return float(np.median(self._raw[network]))

    def typical_ms(self, network: int) -> float:
        """Median latency of a timed network in ms at the machine's typical speed; as measured where that speed is not known."""
        return float(np.median(self._typical[network]))

    @property
    def slowdown(self) -> float:
        """Current over typical latency of the machine; 1 where it is not known."""
        return float(np.median(self._slowdowns)) if self._slowdowns else 1.0

    @property
    def likely_ms(self) -> Floats:
        """Posterior latency of each network in ms, at the machine's current or typical speed, whichever is slower; [N]."""
        likely_N: Floats = self._estimates_N * self._factor
        of_one_process = (_MEDIAN * _deviation(self._typical)) ** 2
        for network, times in self._typical.items():
            weight = 1 / (1 + of_one_process / len(times) / self._doubt**2)
            likely_N[network] *= (self.typical_ms(network) / likely_N[network]) ** weight
        return likely_N * max(1.0, self.slowdown)

    @property
    def _factor(self) -> float:
        """The table's common bias as a factor, estimated from the timed networks."""
        return float(np.median([self.typical_ms(i) / self._estimates_N[i] for i in self._typical])) if self._typical else 1.0


def _deviation(times: dict[int, list[float]]) -> float:
    """Robust standard deviation of single processes around their network's median, as a share, pooled over all networks."""
    several = [np.log(of_one) for of_one in times.values() if len(of_one) > 1]
    if not several:
        return 0.0
    off = [np.abs(logs_P - np.median(logs_P)) * math.sqrt(len(logs_P) / (len(logs_P) - 1)) for logs_P in several]
    return _MAD * float(np.median(np.concatenate(off)))
