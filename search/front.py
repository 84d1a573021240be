"""Front: the networks of a search that no other beats, saved so that any budget is answered from them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from ofa.arch import Arch
from ofa.errors import BudgetError, SearchError
from search.budget import COLUMNS, COSTS, Budget, Columns
from search.pareto import Bools, Floats, non_dominated
from search.store import read_table, write_table

if TYPE_CHECKING:  # a query needs no networks, and so no torch, which takes a second to load
    from search.problem import Archive

__all__ = ["Candidate", "Front", "ImpossibleBudgetError", "staircase"]

_SCHEMA = 1
_JUDGED = tuple(cost for cost in COSTS if cost != "latency_low_ms")
"""The costs that a budget can limit: a network stays if it is best for some limits on them."""

_COUNTS = ("macs", "params", "weight_bytes", "peak_activation_bytes")


class ImpossibleBudgetError(BudgetError):
    """A budget that no network meets.

    Attributes:
        binding: by limit that binds, the least value that can be achieved (with the other limits kept, if each alone can be kept).
    """

    def __init__(self, message: str, binding: Mapping[str, float]) -> None:
        super().__init__(message)
        self.binding = dict(binding)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network and what is promised of it.

    Attributes:
        arch: the network.
        accuracy: 0..1.
        latency_ms, latency_low_ms, latency_high_ms: expected latency and the interval that holds it.
        macs, params, weight_bytes, peak_activation_bytes: exact costs.
    """

    arch: Arch
    accuracy: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    macs: int
    params: int
    weight_bytes: int
    peak_activation_bytes: int

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "arch": self.arch.to_json()}


class Front:
    """The networks that no other evaluated network beats in accuracy and every cost.

    Attributes:
        networks: one row each, ascending in latency: the columns of ``search.problem.COLUMNS``, and ``arch`` as JSON text.
        dominated: the same columns but ``arch`` of everything else that was evaluated, for pictures.
        metadata: JSON values: space, device, where accuracy and latency come from, the study.
    """

    def __init__(self, networks: pd.DataFrame, dominated: pd.DataFrame, metadata: Mapping[str, Any]) -> None:
        if not len(networks):
            raise SearchError("a front must hold a network, but this one is empty; evaluate some networks that keep the budget")
        self.networks = networks.sort_values("latency_ms", kind="stable", ignore_index=True)
        self.dominated = dominated.reset_index(drop=True)
        self.metadata = dict(metadata)
        self._columns = _columns(self.networks)

    @classmethod
    def of(cls, archive: Archive, metadata: Mapping[str, Any]) -> Self:
        """The front of all evaluated networks that keep the problem's budget.

        Raises:
            ImpossibleBudgetError: none of them keeps it.
        """
        columns, archs, budget = archive.columns(), archive.archs, archive.problem.budget
        allowed = budget.allows(columns)
        if not allowed.any():
            raise _impossible(columns, budget, f"of the {len(archs)} networks evaluated")
        rows = np.flatnonzero(allowed)
        best = np.zeros(len(archs), dtype=np.bool_)
        best[rows[non_dominated(_judged(columns)[rows])]] = True
        frame = pd.DataFrame({name: columns[name] for name in COLUMNS})
        networks = frame[best].assign(arch=[json.dumps(archs[i].to_json()) for i in np.flatnonzero(best)])
        return cls(networks, frame[~best], metadata)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def device_name(self) -> str:
        """The device that its latencies are of."""
        return str(self.metadata["device"])

    def query(self, budget: Budget, top: int = 1) -> tuple[Candidate, ...]:
        """The most accurate networks that keep ``budget``, best first; of equally accurate ones the faster first.

        Args:
            budget: the most that they may cost.
            top: how many, fewer if the front has not so many.

        Raises:
            ImpossibleBudgetError: no network of the front keeps it. As nothing that was evaluated is less costly than the front,
                the least values it states are those of everything that was evaluated.
            SearchError: ``top`` is below 1.
        """
        if top < 1:
            raise SearchError(f"a query must ask for at least 1 network, but top is {top}; ask for 1 or more")
        allowed = np.flatnonzero(budget.allows(self._columns))
        if not len(allowed):
            raise _impossible(self._columns, budget, "of the front")
        order = np.lexsort((self._columns["latency_ms"][allowed], -self._columns["accuracy"][allowed]))
        return tuple(self.candidate(int(i)) for i in allowed[order[:top]])

    def candidate(self, row: int) -> Candidate:
        """The network of a row of ``networks``."""
        values = {name: self._columns[name][row].item() for name in COLUMNS}
        values.update({name: int(values[name]) for name in _COUNTS})
        return Candidate(arch=Arch.from_json(json.loads(self.networks["arch"].iloc[row])), **values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the front as a Parquet file."""
        rows = pd.concat([self.networks.assign(on_front=True), self.dominated.assign(on_front=False, arch=None)], ignore_index=True)
        write_table(rows, self.metadata, path, kind="front", schema=_SCHEMA)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` wrote.

        Raises:
            FileError: the file is absent, damaged, no front, or of a newer schema.
        """
        wanted = (*COLUMNS, "arch", "on_front")
        rows, metadata = read_table(path, kind="front", schema=_SCHEMA, columns=wanted, made_by="ofa search")
        on_front = rows.pop("on_front").to_numpy(dtype=np.bool_)
        return cls(rows[on_front], rows[~on_front].drop(columns="arch"), metadata)


def staircase(columns: Columns, costs: tuple[str, ...]) -> Bools:
    """Which networks no other beats in accuracy and these costs."""
    return non_dominated(np.stack([-columns["accuracy"], *(columns[cost] for cost in costs)], axis=1))


def _judged(columns: Columns) -> Floats:
    return np.stack([-columns["accuracy"], *(columns[cost] for cost in _JUDGED)], axis=1)


def _columns(rows: pd.DataFrame) -> dict[str, Floats]:
    return {name: rows[name].to_numpy(dtype=np.float64) for name in COLUMNS}


def _impossible(columns: Columns, budget: Budget, among: str) -> ImpossibleBudgetError:
    limits = budget.limits
    least = {key: float(columns[budget.column(key)].min()) for key in limits}
    alone = {key: least[key] for key in limits if least[key] > limits[key]}
    binding = alone or _together(columns, budget)
    called = {key: f"{key} (the upper end of its interval)" if budget.column(key) != key else key for key in limits}
    wanted = " and ".join(f"{called[key]} <= {limit:g}" for key, limit in limits.items())
    achievable = (" and " if alone else " or ").join(f"{key} {_raised(value):.12g}" for key, value in binding.items())
    how = "the least achievable is" if alone else "with the other limits kept the least achievable is"
    message = f"a budget must be one that some network keeps, but none {among} has {wanted}: {how} {achievable}; raise it to that"
    return ImpossibleBudgetError(message, binding)


def _raised(value: float) -> float:
    """A number in few digits that is no less than ``value``, so that a budget which is raised to it can be met."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 3)
    return value if value.is_integer() else math.ceil(value / scale) * scale


def _together(columns: Columns, budget: Budget) -> dict[str, float]:
    """Limits that can each be kept, but not at once: what each would have to be if the others stay."""
    excess = budget.violations(columns)
    binding = {}
    for key in excess:
        others = np.all([excess[other] <= 0 for other in excess if other != key], axis=0)
        if others.any():
            binding[key] = float(columns[budget.column(key)][others].min())
    if binding:
        return binding
    # Not even all but one can be kept: what the nearest network costs beyond the limits.
    nearest = int(np.argmin(np.max(list(excess.values()), axis=0)))
    return {key: float(columns[budget.column(key)][nearest]) for key in excess if excess[key][nearest] > 0}
