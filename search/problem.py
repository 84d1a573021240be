"""The problem of a search: space, objectives, hard limits, and the evaluation of encoded archs.

Shape suffixes: N archs, C columns of an encoded arch. Every column of costs is a float64 array [N].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from latency_tables import LatencyTable
from latency_tables.calibrate import table_resolutions
from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.costs import COSTS
from ofa.errors import SearchError, TableError, nearest
from ofa.families import whole_of
from ofa.latency import LATENCIES
from ofa.resolution import Resolution, ascending, resolutions_to_json
from ofa.space import Space
from search.accuracy import AccuracySource, Remembering
from search.budget import ENERGY, Budget, Columns, Limit, at_device, known_columns
from search.latency import LatencySource
from search.precisions.costs import costs_in_files
from search.precisions.space import archs_of, precisions_of, without_precisions
from search.units import called, is_known

__all__ = ["Problem", "common_resolutions"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Space, sources, objectives and limits of a search.

    Attributes:
        space: the searched space; over precisions, the space that ``search.precisions.joining.joined`` returns.
        accuracy: source of accuracies, which are maximized.
        latencies: sources of latencies, one per device.
        budget: hard limits that every answer keeps.
        objectives: columns of the costs to trade against accuracy, such as ``latency_high_ms@pi`` or ``macs``. None trades the upper end of
            the latency's interval on every device (the expected latency if the budget says so), or MACs without devices. With an empty
            tuple only accuracy counts, within the budget.
        whole: the space that contains the searched one, and that the front stores; None for the named space that contains it, or the
            searched space itself.

    Raises:
        SearchError: a source is of another space, two sources are of one device, an objective is no known cost, or a limit is of an unknown
            cost.
    """

    space: Space
    accuracy: AccuracySource
    latencies: Sequence[LatencySource] = ()
    budget: Budget = field(default_factory=Budget)
    objectives: tuple[str, ...] | None = None
    whole: Space | None = None

    def __post_init__(self) -> None:
        spaces = [("accuracies", self.accuracy.space), *(("latencies", source.space) for source in self.latencies)]
        for what, known in spaces:
            if not (self.space.is_part_of(known) or known.is_part_of(self.space)):
                named = [f"{space.name} with {space.num_classes} classes" for space in (self.space, known)]
                others = " with other networks" if named[0] == named[1] else ""
                raise SearchError(
                    f"{what} must be of the searched space, but the space is {named[0]} and they are of {named[1]}{others}; "
                    f"fit, train or measure for {self.space.name}"
                )
        if len(set(self.devices)) < len(self.devices):
            raise SearchError(f"each device must come once, but they are {', '.join(self.devices)}; leave one table out")
        if self.objectives is None:
            ends = tuple(at_device("latency_ms" if self.budget.expected_latency else "latency_high_ms", name) for name in self.devices)
            object.__setattr__(self, "objectives", ends or ("macs",))
        for name in self.costs:
            if name not in self.column_names:
                costs = ", ".join(dict.fromkeys(map(called, self.column_names)))
                words = f"{called(name)}; known: {costs}" if is_known(name) else f"'{name}'; {nearest(name, self.column_names)}"
                raise SearchError(f"an objective must be a known cost, but got {words}")
        _ = self.limits

    @property
    def of_whole(self) -> Space:
        """The whole space that contains the searched one."""
        return whole_of(without_precisions(self.space)) if self.whole is None else self.whole

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices, in order."""
        return tuple(source.device_name for source in self.latencies)

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives without accuracy."""
        return self.objectives or ()

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """Columns of all known costs of a network."""
        return known_columns(self.devices, [source.device_name for source in self.latencies if source.has_energy])

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """The budget's limits; errors as ``Budget.limits``."""
        limits = tuple(self.budget.limits(self.devices))
        for limit in limits:
            if limit.column not in (*self.column_names, "accuracy"):
                raise SearchError(f"a budget must limit a known cost, but no table here has {called(limit.column)}; leave it out")
        return limits

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The costs that a search needs of every network: the objectives, and costs with a limit."""
        return tuple(dict.fromkeys([*self.costs, *(limit.column for limit in self.limits if limit.column != "accuracy")]))

    def is_measured(self, name: str) -> bool:
        """Whether a cost is measured network by network, which is slow."""
        return any(name.endswith(f"@{source.device_name}") and source.is_measured for source in self.latencies)

    @property
    def measured_names(self) -> tuple[str, ...]:
        """The measured costs, which a study stores so that they are not measured again."""
        return tuple(at_device(LATENCIES[0], source.device_name) for source in self.latencies if source.is_measured)

    def recall(self, rows_NC: Rows, columns: Columns) -> None:
        """Give measuring sources the values that were measured before.

        Args:
            rows_NC: encoded archs.
            columns: accuracies and costs of ``measured_names`` by name, [N] each; NaN where unknown.
        """
        told: list[tuple[str, AccuracySource | LatencySource]] = [("accuracy", self.accuracy)]
        told += [(at_device(LATENCIES[0], source.device_name), source) for source in self.latencies]
        for name, source in told:
            if name in columns and isinstance(source, Remembering):
                known = np.flatnonzero(~np.isnan(columns[name]))
                source.recall(self.space.rows_in(source.space, rows_NC[known]), columns[name][known])

    def archs(self, rows_NC: Rows) -> list[Arch]:
        """The archs of encoded rows."""
        return archs_of(self.space, rows_NC)

    def precisions(self, rows_NC: Rows) -> list[str] | None:
        """The precision of each network; None if precision is no gene of the search."""
        return precisions_of(self.space, rows_NC)

    @cached_property
    def _files(self) -> tuple[str, ...]:
        """The precisions of the devices."""
        return tuple(source.info.conditions.precision for source in self.latencies)

    def accuracies(self, rows_NC: Rows) -> Floats:
        """The accuracies (0..1) of encoded archs of the space; [N].

        Raises:
            SearchError: the accuracy source returns another shape, or numbers outside 0..1.
        """
        if not len(rows_NC):
            return np.empty(0)
        values = np.asarray(self.accuracy.of_rows(self.space.rows_in(self.accuracy.space, rows_NC)), dtype=np.float64)
        if values.shape != (len(rows_NC),):
            raise SearchError(
                f"an accuracy source must return one number per network, but for {len(rows_NC)} networks it returns an array of shape "
                f"{values.shape}; correct {type(self.accuracy).__name__}"
            )
        wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(wrong):
            raise SearchError(
                f"an accuracy must be a number in 0..1, but {type(self.accuracy).__name__} returns {values[wrong[0]]} for "
                f"{self.archs(rows_NC[wrong])[0].to_json()}; correct it and search again"
            )
        return values

    def accuracy_intervals(self, rows_NC: Rows) -> tuple[Floats, Floats]:
        """The ends of the 90 % intervals of accuracies, [N] each; NaN where the source knows none."""
        return self.accuracy.interval_of_rows(self.space.rows_in(self.accuracy.space, rows_NC))

    def costs_of_rows(self, rows_NC: Rows, names: Iterable[str] | None = None) -> dict[str, Floats]:
        """Costs of encoded archs by name; [N] each.

        Args:
            rows_NC: encoded archs.
            names: of the costs; None for ``needed``.

        Raises:
            SearchError: a latency source returns a number that is not positive.
        """
        wanted = self.needed if names is None else tuple(names)
        found = costs_in_files(self.space, rows_NC, [name for name in wanted if name in COSTS], self._files)
        for source in self.latencies:
            own = [name for name in wanted if name.endswith(f"@{source.device_name}")]
            if own:
                found.update(self._on_device(source, self.space.rows_in(source.space, rows_NC), own))
        return {name: found[name] for name in wanted}

    def _on_device(self, source: LatencySource, rows_NC: Rows, names: Sequence[str]) -> dict[str, Floats]:
        found = {}
        energy = at_device(ENERGY, source.device_name)
        if energy in names:
            found[energy] = source.energies_of_rows(rows_NC)
        if set(names) - {energy}:
            columns = [at_device(name, source.device_name) for name in LATENCIES]
            found.update(zip(columns, source.estimates_of_rows(rows_NC), strict=True))
        for name, values_N in found.items():
            wrong = np.flatnonzero(~(np.isfinite(values_N) & (values_N > 0)))
            if len(wrong):
                raise SearchError(
                    f"{called(name)} must be a positive number, but is {values_N[wrong[0]]} for "
                    f"{archs_of(source.space, rows_NC[wrong])[0].to_json()}; measure the table again"
                )
        return found


def common_resolutions(space: Space, known: Iterable[Resolution], tables: Iterable[LatencyTable]) -> tuple[Resolution, ...]:
    """The resolutions of a space that the accuracies and all latency tables share, ascending.

    Args:
        space: the space.
        known: resolutions of the accuracies.
        tables: the latency tables.

    Raises:
        TableError: they share no resolution.
    """
    common = set(known) & set(space.resolutions)
    for table in tables:
        common &= set(table_resolutions(table, space, None))
    if not common:
        raise TableError(
            f"tables and accuracies must share a resolution, but those of {space.name} share none; build a table with --resolutions "
            f"{','.join(map(str, resolutions_to_json(known)))}"
        )
    return tuple(ascending(common))
