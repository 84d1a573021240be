"""Updates the calibration of a table with later measurements of whole networks."""

from __future__ import annotations

from collections.abc import Mapping

from latency_tables.correction import fit_correction
from latency_tables.estimate import Estimator
from latency_tables.info import MeasuredNetwork
from latency_tables.table import LatencyTable
from latency_tables.timing import PROCESSES
from ofa.arch import Arch
from ofa.space import Space

__all__ = ["learn_from"]

_MOMENTARY = 0.03
"""Usual fluctuation of a machine's speed within minutes, as a share, as seen in checks of tables."""
_REMEMBERED = 60
"""Window of the running mean of the speed, in processes."""


def learn_from(
    table: LatencyTable, space: Space, typical_ms: Mapping[Arch, float], *, slowdown: float, processes: int
) -> LatencyTable | None:
    """A copy of a table with further calibration networks, and with the correction fitted to all of them.

    A new measurement of a network replaces its old one. The machine's typical speed becomes the geometric running mean over all timed
    processes, and the latencies of all networks are rescaled to it. A slowdown beyond the usual fluctuation is taken as permanent.

    Args:
        table: a calibrated table.
        space: the space of the networks.
        typical_ms: their measured latencies in ms, at the speed that is typical for the table's calibration.
        slowdown: latency of the machine during the measurement, relative to that typical speed (above 1: slower).
        processes: number of processes that timed them.

    Returns:
        The copy. None if the table has no calibration networks, as a correction from the new networks alone would hold for their part of
        the range only; or if its rows are estimates, which are fitted to its networks already.

    Raises:
        TableError: the table lacks blocks of a network.
    """
    old = table.correction
    if old is None or not table.info.networks or table.info.estimated is not None:
        return None
    before = min(_REMEMBERED, table.info.processes or PROCESSES)
    passes = abs(slowdown - 1) <= max(_MOMENTARY, old.speed_spread)
    lasting = slowdown ** (processes / (before + processes)) if passes else slowdown
    known_ms = {network.arch: network.measured_ms for network in table.info.networks}
    now_ms = {arch: lasting * ms for arch, ms in {**known_ms, **typical_ms}.items()}
    estimator = Estimator(space, table)
    sums_ms, sizes = zip(*(estimator.sums(arch) for arch in now_ms), strict=True)
    correction = fit_correction(
        sums_ms, sizes, list(now_ms.values()), coverage=old.coverage, speed=lasting * old.speed, speed_spread=old.speed_spread
    )
    networks = tuple(MeasuredNetwork(arch=arch, measured_ms=ms) for arch, ms in now_ms.items())
    seen = before + processes if passes else processes
    return table.with_info(calibration=correction, networks=networks, processes=seen)
