"""Front: the non-dominated networks of a search, saved so that they answer any budget."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from devices import Conditions
from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.costs import COSTS
from ofa.errors import SearchError
from ofa.families import stored_space, whole_of
from ofa.latency import LATENCIES, Latency
from ofa.parquet import Kind
from ofa.space import Space
from search.budget import ENERGY, Budget, at_device, excess_of
from search.front.candidate import Candidate
from search.front.infeasible import impossible
from search.front.info import FrontInfo, VerifiedNetwork
from search.units import called

__all__ = ["PRECISION", "Front"]

PRECISION = "precision"
"""Column of a network's precision, in fronts with several precisions."""
_TEXTS = ("arch", PRECISION)
_ACCURACIES = ("accuracy", "accuracy_low", "accuracy_high")
_FILES = Kind(
    name="front",
    info=FrontInfo,
    schema=4,
    oldest=2,
    sealed=3,
    columns={**dict.fromkeys((*_ACCURACIES, *sorted(COSTS.own)), float), "arch": str, "on_front": bool},
    gaps=("arch", PRECISION),  # empty for dominated networks
    optional={PRECISION: str},
    made_by="ofa search",
)


class Front:
    """The networks of a search that no other evaluated network dominates in accuracy and the objectives (Pareto front).

    Attributes:
        networks: one row per network, ascending in the first objective, with the columns ``accuracy`` (0..1), ``accuracy_low`` and
            ``accuracy_high`` (NaN where unknown), those of ``search.budget.known_columns``, ``arch`` as JSON text, and ``precision`` if
            there are several.
        dominated: a sample of the other evaluated networks, for pictures: ``accuracy`` and costs.
        info: budget and objectives of the search, and the origin of accuracies and latencies.

    Raises:
        SearchError: ``networks`` is empty.
    """

    def __init__(self, networks: pd.DataFrame, dominated: pd.DataFrame, info: FrontInfo) -> None:
        if not len(networks):
            raise SearchError("a front must hold a network, but this one is empty; evaluate some networks that keep the budget")
        self.info = info
        by = [name for name in (*info.objectives[:1], "accuracy") if name in networks]
        self.networks = networks.sort_values(by, kind="stable", ignore_index=True)
        self.dominated = dominated.reset_index(drop=True)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def space(self) -> Space:
        """The space of its networks: the one stored in the front, or in fronts of earlier versions the space of ofa with its name.

        No module is imported for it.

        Raises:
            SpaceError: the space is unknown here, or its class has not been imported.
        """
        return whole_of(stored_space(self.info.space_json, self.info.space, self.info.num_classes, "a front"))

    @property
    def device_names(self) -> tuple[str, ...]:
        """Names of the devices of its latencies."""
        return self.info.devices

    @property
    def conditions(self) -> dict[str, Conditions]:
        """Measurement conditions of the latencies by device (with several precisions, by measuring device); unknown ones are left out."""
        names = [each for name in self.device_names for each in self.info.measures(name)]
        return {name: self.info.latency[name].conditions for name in names if name in self.info.latency}

    def with_info(self, **changes: Any) -> Self:
        """A copy with some fields of ``info`` replaced."""
        return type(self)(self.networks, self.dominated, replace(self.info, **changes))

    def with_verified(self, networks: Iterable[VerifiedNetwork]) -> Self:
        """A copy with further measurements; a newer measurement of a network on the same device replaces the older one."""
        noted = {(network.device, network.arch): network for network in (*self.info.verified, *networks)}
        return self.with_info(verified=tuple(noted.values()))

    @cached_property
    def columns(self) -> dict[str, Floats]:
        """Accuracy and costs of the networks, by column; [N] each."""
        return {str(name): self.networks[name].to_numpy(dtype=np.float64) for name in self.networks if name not in _TEXTS}

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """The precision of each network; empty if the front has only one."""
        return tuple(self.networks[PRECISION]) if PRECISION in self.networks else ()

    def query(self, budget: Budget, top: int = 1) -> tuple[Candidate, ...]:
        """The most accurate networks that keep ``budget``, best first; of equally accurate ones the less costly first.

        Args:
            budget: limits on costs and accuracy. For limits outside the front's objectives better networks may exist than the front holds;
                see ``unsearched``.
            top: number of networks to return; fewer if fewer keep the budget.

        Returns:
            The networks.

        Raises:
            ImpossibleBudgetError: no network of the front keeps the budget.
            SearchError: ``top`` is below 1, or the budget limits a number that the front lacks.
        """
        if top < 1:
            raise SearchError(f"a query must ask for at least 1 network, but top is {top}; ask for 1 or more")
        limits = budget.limits(self.device_names)
        for limit in limits:
            if limit.column not in self.columns:
                known = dict.fromkeys(called(name) for name in self.columns)
                raise SearchError(
                    f"a budget must limit a number that the front knows, but {called(limit.column)} is not among {', '.join(known)}; "
                    "search with a table that has it"
                )
        excess_N = excess_of(limits, self.columns, len(self))
        allowed = np.flatnonzero(excess_N <= 0)
        if not len(allowed):
            nearest = self.candidate(int(np.argmin(excess_N)))
            least, source = self.info.least, self.info.accuracy_source
            raise impossible(limits, self.columns, least, nearest=nearest, among="of the front", source=source)
        costs = [self.columns[name][allowed] for name in reversed(self.info.objectives)]
        order = np.lexsort([*costs, -self.columns["accuracy"][allowed]])
        return tuple(self.candidate(int(i)) for i in allowed[order[:top]])

    def unsearched(self, budget: Budget) -> tuple[str, ...]:
        """The limits of a budget that the search did not trade: lower limits, and costs that were no objective.

        The front's answer keeps them, but a better network may exist outside of the front.
        """
        searched = {name.replace("latency_high_ms", "latency_ms") for name in self.info.objectives}
        limits = budget.limits(self.device_names)
        strange = [
            limit.name
            for limit in limits
            if limit.column != "accuracy" and (limit.sign < 0 or limit.column.replace("latency_high_ms", "latency_ms") not in searched)
        ]
        return tuple(dict.fromkeys(strange))

    def candidate(self, row: int) -> Candidate:
        """The network in a row of ``networks``."""
        values = {name: float(column[row]) for name, column in self.columns.items()}
        ends = {name: None if np.isnan(values[name]) else values[name] for name in _ACCURACIES[1:]}
        return Candidate(
            arch=Arch.from_text(self.networks["arch"].iloc[row]),
            accuracy=values["accuracy"],
            accuracy_low=ends["accuracy_low"],
            accuracy_high=ends["accuracy_high"],
            latencies={device: Latency(**{name: values[at_device(name, device)] for name in LATENCIES}) for device in self.device_names},
            energies_mj={device: values[key] for device in self.device_names if (key := at_device(ENERGY, device)) in values},
            precision=self.precisions[row] if self.precisions else None,
            costs={name: int(values[name]) for name in COSTS.names() if np.isfinite(values.get(name, np.nan))},
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the front as a Parquet file."""
        none = dict.fromkeys(name for name in _TEXTS if name in self.networks)
        rows = pd.concat([self.networks.assign(on_front=True), self.dominated.assign(on_front=False, **none)], ignore_index=True)
        _FILES.write(rows, self.info, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            FileError: the file is absent, damaged, no front, or of an unsupported schema.
        """
        rows, info = _FILES.read(path)
        if missing := [each for device in info.devices for name in LATENCIES if (each := at_device(name, device)) not in rows]:
            raise _FILES.incomplete(path, f"lacks {missing[0]}")
        on_front = rows.pop("on_front").to_numpy(dtype=np.bool_)
        texts = [name for name in _TEXTS if name in rows]
        for name in texts:
            if rows[name][on_front].isna().any():
                raise _FILES.incomplete(path, f"a network of it has no {name}")
        if bool(info.precisions) != (PRECISION in texts):
            raise _FILES.incomplete(path, "its networks and its devices are not of the same precisions")
        dominated = rows[~on_front].drop(columns=texts).dropna(axis="columns", how="all")
        return cls(rows[on_front], dominated, info)
