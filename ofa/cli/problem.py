"""The problem of a search from the options of ``ofa search``; each worker process reads its files again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ofa.cli.run_data import load_run_data, place_run
from ofa.cli.spaces import check_named, named
from ofa.costs import COSTS
from ofa.registry import import_also_from

if TYPE_CHECKING:
    from latency_tables import LatencyTable
    from ofa.resolution import Resolution
    from ofa.space import Space
    from search.accuracy import AccuracySource
    from search.budget import Budget
    from search.latency import LatencySource
    from search.problem import Problem

__all__ = ["ProblemOfFiles", "tradeable"]


def tradeable() -> dict[str, str]:
    """Costs that can be traded against accuracy, by the names of the budgets' options."""
    return {"latency": "latency_ms", "energy": "energy_mj", **{COSTS.get(name).option: name for name in COSTS.names()}}


@dataclass(frozen=True, kw_only=True)
class ProblemOfFiles:
    """Paths and settings of a search; calling it reads the files.

    Attributes:
        space: the user's name of the space; None for the space of the accuracies.
        predictor: file of a predictor, of ofa or MIT; None with ``supernet``.
        supernet: folder of a run whose networks are measured; None with ``predictor``.
        tables: files of latency tables.
        losses: files of quantization losses.
        devices: names of devices that time every network, for searches without a table.
        device_folders: the user's own folders of device files.
        ssh_config: path of an ssh configuration for devices over ssh; None for the user's own.
        resolutions: input resolutions in pixels; None for all that the sources share.
        budget: hard limits.
        trades: costs to trade against accuracy, of ``tradeable``, perhaps with ``@DEVICE``; None for ``Problem``'s default, empty for none.
        seed: seed of measurements.
        data: present path of the run's images, if they moved.
        test_data: present path of its test images, if they moved.
        trust: whether to import a ``module:attribute`` that the run names.
        on: processor that measures the run's networks: ``cpu``, ``cuda`` or ``cuda:N``; None for a GPU if there is one.
    """

    space: str | None
    predictor: Path | None
    supernet: Path | None
    tables: Sequence[Path]
    devices: Sequence[str]
    device_folders: Sequence[Path]
    resolutions: Sequence[Resolution] | None
    budget: Budget
    losses: Sequence[Path] = ()
    ssh_config: Path | None = None
    trades: Sequence[str] | None = None
    seed: int = field(default=0)
    data: str | None = None
    test_data: str | None = None
    trust: bool = False
    on: str | None = None

    def __call__(self) -> Problem:
        """Read the files.

        Raises:
            OfaError: a file cannot be read, or is of another space.
        """
        from latency_tables import LatencyTable
        from search.precisions.joining import joined
        from search.predictor.quantization import QuantizationLoss
        from search.problem import Problem

        import_also_from(str(Path.cwd()))  # for worker processes, which do not start through the command
        space, accuracy, known, whole = self._accuracies()
        tables = [LatencyTable.load(path) for path in self.tables]
        searched = space.restrict(resolution=self._common(space, known, tables))
        sources = [*self._estimators(searched, tables), *self._measured(searched)]
        parts = joined(searched, accuracy, sources, [QuantizationLoss.load(path) for path in self.losses])
        return Problem(
            space=parts.space,
            accuracy=parts.accuracy,
            latencies=parts.latencies,
            budget=self.budget,
            objectives=self._objectives(parts.latencies),
            whole=whole,
        )

    def _accuracies(self) -> tuple[Space, AccuracySource, Sequence[Resolution], Space]:
        """The space, its source of accuracies, the resolutions of that source, and the whole space."""
        wanted = named(self.space)
        if self.predictor is None:
            assert self.supernet is not None
            space, measured = self._measured_accuracy(self.supernet, wanted)
            return space, measured, space.resolutions, space
        if self.predictor.suffix == ".safetensors":
            from ofa.interop import mit

            imported = mit.load_predictor(self.predictor, wanted)
            return imported.space, imported, imported.resolutions, imported.space
        from search.predictor.accuracy_predictor import AccuracyPredictor

        loaded = AccuracyPredictor.load(self.predictor)
        if wanted is not None and wanted.name != loaded.space.name:  # compared by name, since a name does not tell the number of classes
            AccuracyPredictor.load(self.predictor, wanted)  # raises an error that names the difference
        check_named(wanted, loaded.whole, f"'{self.predictor}'")
        return loaded.space, loaded, loaded.space.resolutions, loaded.whole

    def _measured_accuracy(self, folder: Path, wanted: Space | None) -> tuple[Space, AccuracySource]:
        from multiprocessing import parent_process

        from ofa.training import load_run
        from search.accuracy import MeasuredAccuracy

        run = load_run(folder, trust=self.trust)
        place_run(run, self.on)
        # Workers read the same images again; remarks about them are printed once.
        if parent_process() is None:
            found = load_run_data(run, data=self.data, test_data=self.test_data)
        else:
            found = run.load_data(data=self.data or "", test_data=self.test_data or "")
        source = MeasuredAccuracy(run.supernet, found.splits.selection, found.splits.train, task=run.recipe.get_task())
        if wanted is not None and wanted.name != run.supernet.space.name:
            return wanted, source
        # The run's own space has the number of classes of its data.
        check_named(wanted, run.supernet.space, f"'{folder}'")
        return run.supernet.space, source

    def _common(self, space: Space, known: Sequence[Resolution], tables: Sequence[LatencyTable]) -> Sequence[Resolution]:
        """The requested resolutions, or else all that the sources share."""
        from search.problem import common_resolutions

        return common_resolutions(space, known, tables) if self.resolutions is None else self.resolutions

    def _estimators(self, space: Space, tables: Sequence[LatencyTable]) -> list[LatencySource]:
        from latency_tables import Estimator

        return [Estimator(space, table) for table in tables]

    def _measured(self, space: Space) -> list[LatencySource]:
        import numpy as np

        from devices import get_device
        from search.latency import MeasuredLatency

        found = [get_device(name, self.device_folders, ssh_config=self.ssh_config) for name in self.devices]
        return [MeasuredLatency(space, device, rng=np.random.default_rng(self.seed)) for device in found]

    def _objectives(self, latencies: Sequence[LatencySource]) -> tuple[str, ...] | None:
        if self.trades is None:
            return None
        from ofa.errors import nearest

        columns, devices, found = tradeable(), [source.device_name for source in latencies], []
        for trade in self.trades:
            name, _, device = trade.partition("@")
            if name not in columns:
                raise typer.BadParameter(
                    f"'{trade}' cannot be traded against accuracy; {nearest(name, tuple(columns))}", param_hint="--trade"
                )
            column = columns[name]
            if name == "latency" and not self.budget.expected_latency:
                column = "latency_high_ms"
            if name not in ("latency", "energy"):
                found.append(column)
            else:
                found += [f"{column}@{each}" for each in ([device] if device else devices)]
        return tuple(dict.fromkeys(found))
