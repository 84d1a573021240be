"""Names of a network's costs, and limits on them.

Costs on a device carry the device's name: ``latency_ms@pi``, ``energy_mj@pi``. Shapes: N networks; every column is a float64 array [N].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ofa.arrays import Floats
from ofa.costs import COSTS
from ofa.errors import SearchError, nearest
from ofa.latency import LATENCIES
from search.units import called, read_typed

__all__ = ["Bound", "Budget", "Columns", "at_device", "known_columns"]

ENERGY = "energy_mj"
"""Energy of one call on a device, if its table has it."""

Columns = Mapping[str, Floats]
"""Arrays of equal length [N] by the name of the cost, or ``accuracy``."""


def at_device(name: str, device: str) -> str:
    """The column of a cost on a device, such as ``latency_ms@pi``."""
    return f"{name}@{device}"


def known_columns(devices: Sequence[str], with_energy: Sequence[str] = ()) -> tuple[str, ...]:
    """All costs of an evaluated network, in the order of tables and files."""
    latencies = [at_device(name, device) for device in devices for name in LATENCIES]
    return (*latencies, *(at_device(ENERGY, device) for device in with_energy), *COSTS.names())


@dataclass(frozen=True)
class Bound:
    """Upper and lower limit of one number.

    Attributes:
        most: upper limit; None for none.
        least: lower limit; None for none.

    Raises:
        SearchError: neither limit is given, a limit is no positive number, or ``least`` is above ``most``.
    """

    most: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        for limit in (self.most, self.least):
            number = limit is None or (isinstance(limit, int | float) and not isinstance(limit, bool))
            if not number or (limit is not None and not (math.isfinite(limit) and limit > 0)):
                raise SearchError(f"a budget must be a positive number, but one is {limit!r}; give what the network may cost")
        if self.most is None and self.least is None:
            raise SearchError("a budget must have a limit, but has neither a least nor a most; give one of them")
        if self.most is not None and self.least is not None and self.least > self.most:
            raise SearchError(
                f"a budget must leave something, but is at least {self.least:g} and at most {self.most:g}; swap or widen them"
            )

    def __str__(self) -> str:
        if self.least is None:
            return f"<= {self.most:g}"
        return f">= {self.least:g}" if self.most is None else f"in {self.least:g} .. {self.most:g}"


class Budget:
    """Hard limits on the costs and the accuracy of a network.

    Args:
        limits: limits by name. A number, or a text with a unit such as ``12ms``, is the upper limit; a ``Bound`` gives both limits; None
            is no limit. Names are ``latency_ms`` and ``energy_mj`` (``latency_ms@pi`` with several devices), ``macs``, ``params``,
            ``weight_bytes``, ``peak_activation_bytes``, and ``accuracy`` (0..1), whose number is the lower limit.
        expected_latency: whether to compare ``latency_ms`` with the expected latency. By default its upper limit is compared with the
            upper end of the latency's interval, so that the device keeps the budget as well, and its lower limit with the lower end.

    Attributes:
        bounds: the limits that are set, by name.

    Raises:
        SearchError: an unknown name, or a limit that is no positive number.
    """

    def __init__(self, limits: Mapping[str, float | str | Bound | None] | None = None, *, expected_latency: bool = False) -> None:
        self.expected_latency = expected_latency
        self.bounds: dict[str, Bound] = {}
        known = (LATENCIES[0], ENERGY, *COSTS.names(), "accuracy")
        for name, limit in (limits or {}).items():
            base, _, device = name.partition("@")
            if base not in known or ("@" in name and (base not in (LATENCIES[0], ENERGY) or not device)):
                raise SearchError(f"a budget must limit a known number, but got '{name}'; {nearest(base, known)}")
            if limit is not None:
                self.bounds[name] = self._bound(name, read_typed(name, limit) if isinstance(limit, str) else limit)

    @staticmethod
    def _bound(name: str, limit: float | Bound) -> Bound:
        if name == "accuracy":
            bound = limit if isinstance(limit, Bound) else Bound(least=limit)
            if any(end is not None and end > 1 for end in (bound.least, bound.most)):
                raise SearchError(f"an accuracy must be in 0..1, but the budget says {bound}; divide percentages by 100")
            return bound
        return limit if isinstance(limit, Bound) else Bound(most=limit)

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def to_json(self) -> dict[str, float | dict[str, float]]:
        """The limits by name: a number is the upper limit (of ``accuracy`` the lower), an object has ``least`` and perhaps ``most``."""
        return {name: self._json_of(name, bound) for name, bound in self.bounds.items()}

    @staticmethod
    def _json_of(name: str, bound: Bound) -> float | dict[str, float]:
        given = {"least": bound.least, "most": bound.most}
        set_ = {key: value for key, value in given.items() if value is not None}
        usual = "least" if name == "accuracy" else "most"
        return set_[usual] if set(set_) == {usual} else set_

    def limits(self, devices: Sequence[str]) -> list[Limit]:
        """All limits, each with the column that it is compared with.

        Args:
            devices: names of the devices with known costs. A limit without a device means the only one.

        Raises:
            SearchError: a limit is of another device, or of no device where there are several.
        """
        found = []
        for name, bound in self.bounds.items():
            base, _, device = name.partition("@")
            suffix = f"@{_resolved(base, device, devices)}" if base in (LATENCIES[0], ENERGY) else ""
            for end, sign in ((bound.most, 1), (bound.least, -1)):
                if end is not None:
                    found.append(Limit(name=name, column=self._compared(base, sign) + suffix, limit=float(end), sign=sign))
        return found

    def _compared(self, base: str, sign: int) -> str:
        if base != LATENCIES[0] or self.expected_latency:
            return base
        return "latency_high_ms" if sign > 0 else "latency_low_ms"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """An upper or a lower limit.

    Attributes:
        name: name that the user gave.
        column: column that is compared with the limit.
        limit: the value.
        sign: 1 for an upper limit, -1 for a lower one.
    """

    name: str
    column: str
    limit: float
    sign: int

    def excess(self, columns: Columns) -> Floats:
        """By how much each network breaks the limit, as a share of it; [N]. At most 0 where it is kept."""
        return self.sign * (columns[self.column] / self.limit - 1.0)


def excess_of(limits: Sequence[Limit], columns: Columns, count: int) -> Floats:
    """The largest excess of each network over all limits; [N]. At most 0 where all are kept."""
    worst_N = np.full(count, -np.inf)
    for limit in limits:
        np.maximum(worst_N, limit.excess(columns), out=worst_N)
    return worst_N


def _resolved(base: str, device: str, devices: Sequence[str]) -> str:
    if device in devices:
        return device
    if device or not devices:
        known = f"it knows {', '.join(devices)}" if devices else "it knows no device"
        raise SearchError(f"a budget must be of a device whose table was searched, but got {called(at_device(base, device))}; {known}")
    if len(devices) > 1:
        raise SearchError(
            f"a budget must name its device if there are several, but got only a {called(base)}; "
            f"name one of {', '.join(devices)}, such as {devices[0]}=12ms"
        )
    return devices[0]
