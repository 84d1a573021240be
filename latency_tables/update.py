"""What later measurements of whole networks teach a table that was calibrated before."""

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
"""How far a machine is from its typical speed for a minute, as a share; seen in checks of tables."""
_REMEMBERED = 60
"""Processes after which older ones count less and less."""


def learn_from(
    table: LatencyTable, space: Space, typical_ms: Mapping[Arch, float], *, slowdown: float, processes: int
) -> LatencyTable | None:
    """A copy of a table that has taken in networks which were timed beside those of its calibration, and is corrected anew by all.

    A network that it has already is replaced. The machine's typical speed becomes the mean over all processes that were timed, this
    time's included, and the times of all networks go with it; a machine that is further from its typical speed than it ever is for a
    while has another one from now on.

    Args:
        table: a table with a correction.
        space: of the networks.
        typical_ms: what they took, at the speed that is typical for the table's calibration.
        slowdown: how much slower than that the machine was meanwhile.
        processes: in how many they were timed.

    Returns:
        None where nothing can be learned: a correction from these networks alone would hold for their part of the range only, and
        the rows of a transferred table are fitted to its networks already.

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
