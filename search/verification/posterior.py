"""What is known of the time that networks take on a device: what a table says of them all, and what was measured of some.

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
    """Grows with every measurement.

    A network that is found to be just fast enough among several is likely to have been lucky. So what was measured is weighed with what
    the table says, which is off by a factor that networks of like latency share, and by little beside it: as two measurements of one
    quantity are, each by the inverse of its variance.

    Args:
        estimates_ms: what the table says [N].
        doubt: standard deviation of a network's true time around that and the common factor, as a share; infinite if nothing is known.
    """

    def __init__(self, estimates_ms: Floats, *, doubt: float) -> None:
        self._estimates_N = estimates_ms
        self._doubt = max(doubt, _LEAST_DOUBT)
        self._raw: dict[int, list[float]] = {}
        self._typical: dict[int, list[float]] = {}
        self._slowdowns: list[float] = []

    def add(self, networks: Sequence[int], times: NetworkTimes) -> None:
        """Take in what networks took; those that were timed before have more processes then."""
        for number, network in enumerate(networks):
            self._raw.setdefault(network, []).extend(times.raw_ms[:, number].tolist())
            self._typical.setdefault(network, []).extend(times.times_PN[:, number].tolist())
        self._slowdowns.extend(times.slowdowns)

    @property
    def timed(self) -> tuple[int, ...]:
        """The networks that were timed, in order."""
        return tuple(sorted(self._raw))

    def times_ms(self, network: int) -> tuple[float, ...]:
        """What a timed network took by the clock, in each process."""
        return tuple(self._raw[network])

    def measured_ms(self, network: int) -> float:
        """The median of what a timed network took by the clock."""
        return float(np.median(self._raw[network]))

    def typical_ms(self, network: int) -> float:
        """The median of what it took, brought to the machine's typical speed where something tells that."""
        return float(np.median(self._typical[network]))

    @property
    def slowdown(self) -> float:
        """How much slower than typical the machine was; 1 where nothing tells."""
        return float(np.median(self._slowdowns)) if self._slowdowns else 1.0

    @property
    def likely_ms(self) -> Floats:
        """What each network probably takes at the machine's speed of now or at its typical one, whichever is slower [N]."""
        likely_N: Floats = self._estimates_N * self._factor
        of_one_process = (_MEDIAN * _deviation(self._typical)) ** 2
        for network, times in self._typical.items():
            weight = 1 / (1 + of_one_process / len(times) / self._doubt**2)
            likely_N[network] *= (self.typical_ms(network) / likely_N[network]) ** weight
        return likely_N * max(1.0, self.slowdown)

    @property
    def _factor(self) -> float:
        """By what the table is off, as the timed networks say."""
        return float(np.median([self.typical_ms(i) / self._estimates_N[i] for i in self._typical])) if self._typical else 1.0


def _deviation(times: dict[int, list[float]]) -> float:
    """Standard deviation of single processes around the median of their network, as a share, robustly from all networks."""
    several = [np.log(of_one) for of_one in times.values() if len(of_one) > 1]
    if not several:
        return 0.0
    off = [np.abs(logs_P - np.median(logs_P)) * math.sqrt(len(logs_P) / (len(logs_P) - 1)) for logs_P in several]
    return _MAD * float(np.median(np.concatenate(off)))
