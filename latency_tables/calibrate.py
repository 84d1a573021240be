"""Learns from a few whole networks how they differ from the sum of their blocks, and how sure that makes us."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from devices.device import Device
from devices.measure import describe
from devices.timing import TimingPolicy
from latency_tables.correction import check_enough, fit_correction
from latency_tables.estimate import Estimator
from latency_tables.info import MeasuredNetwork
from latency_tables.table import LatencyTable
from latency_tables.timing import PROCESSES, time_networks, timing_inputs
from ofa.arch import Arch
from ofa.errors import TableError
from ofa.journal import UNKEPT, Steps
from ofa.progress import Progress, silent
from ofa.resolution import Resolution, ascending
from ofa.space import Space

__all__ = ["calibrate_table", "sample_across_range", "table_resolutions"]

_CANDIDATES_PER_NETWORK = 50
_OWN_WILL = 0.3


def calibrate_table(
    table: LatencyTable,
    space: Space,
    device: Device,
    *,
    nets: int = 20,
    resolutions: Iterable[Resolution] | None = None,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    processes: int = PROCESSES,
    steps: Steps = UNKEPT,
) -> LatencyTable:
    """Time whole networks and store them, and the correction that they teach, in a copy of the table.

    The copy's info has as ``calibrated_with`` the version of the runtime; another than the blocks' is for the caller to tell.

    Args:
        table: measured on ``device``, with the blocks of ``space``.
        space: where the networks are drawn from, spread over its range of latencies.
        device: must be the table's.
        nets: how many; at least 9, or a 90 % interval cannot be honest.
        resolutions: in pixels; by default those of the space that the table was built for.
        rng: networks, weights, inputs, order of measurement.
        progress: told how far it is.
        policy: when a measurement is enough; see ``devices.timing``.
        processes: in how many the networks are timed, which share the policy's rounds; each has to load them all.
        steps: keeps what each process measured.

    Raises:
        FileError: ``steps`` are of other inputs.
        TableError: too few networks, another device's table, or blocks that the table lacks.
        DeviceError: the device cannot measure.
    """
    check_enough(nets)
    table.require_device(device)
    allowed = space.restrict(resolution=table_resolutions(table, space, resolutions))
    estimator = Estimator(space, table)
    archs = sample_across_range(allowed, estimator, nets, rng)
    origin = describe(device)
    steps.begin({**timing_inputs(origin, archs, policy), "table": table.digest})
    times = time_networks(table, space, archs, device, rng=rng, progress=progress, policy=policy, processes=processes, steps=steps)
    sums = [estimator.sums(arch) for arch in archs]
    # What is promised is what networks take at the machine's typical speed, and not at the one it had for the table's blocks.
    speed = times.typical_slowdown
    measured_ms = (speed * times.at_first_speed_ms).tolist()
    correction = fit_correction([ms for ms, _ in sums], [size for _, size in sums], measured_ms, speed=speed, speed_spread=times.spread)
    networks = tuple(MeasuredNetwork(arch=arch, measured_ms=ms) for arch, ms in zip(archs, measured_ms, strict=True))
    seen = len(times.slowdowns)
    return table.with_info(calibration=correction, networks=networks, processes=seen, calibrated_with=origin["runtime_version"])


def sample_across_range(space: Space, estimator: Estimator, count: int, rng: np.random.Generator) -> list[Arch]:
    """Different networks whose estimated latencies are spread evenly from the fastest to the slowest.

    Uniformly random networks crowd in the middle; where a correction is to hold at the ends as well, some must be from there.
    """
    drawn = [_sample_of_any_size(space, rng) for _ in range(_CANDIDATES_PER_NETWORK * count)]
    candidates = list(dict.fromkeys([space.smallest(), space.largest(), *drawn]))
    if len(candidates) < count:
        raise TableError(
            f"{count} different networks are needed, but {space.name} has about {len(candidates)} at these resolutions; ask for fewer"
        )
    sums = np.array([estimator.sums(arch)[0] for arch in candidates])
    chosen: list[int] = []
    for target in np.linspace(sums.min(), sums.max(), count):
        distances = np.abs(sums - target)
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
    return [candidates[i] for i in chosen]


def _sample_of_any_size(space: Space, rng: np.random.Generator) -> Arch:
    """A random network whose genes lean to the same side, each stage with a will of its own."""
    lean = rng.random()
    leans: dict[str, float] = {}
    row = []
    for gene in space.columns:
        stage = gene.name[: gene.name.rfind(".")][: len("stages.0")]
        lean_here = leans.setdefault(stage or gene.name, float(np.clip(lean + _OWN_WILL * rng.standard_normal(), 0, 1)))
        row.append(int(rng.binomial(len(gene.values) - 1, lean_here)))
    return space.decode(row)


def table_resolutions(table: LatencyTable, space: Space, resolutions: Iterable[Resolution] | None) -> tuple[Resolution, ...]:
    """The resolutions asked for, or else those of the space that the table was built for.

    Raises:
        TableError: it was built for another space, or another of the same name.
    """
    if resolutions is not None:
        table.info.check_same(space, "the table")
        return ascending(resolutions)
    table.require_space(space)
    return table.info.resolutions_of(space.name)
