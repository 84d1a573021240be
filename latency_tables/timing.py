"""Times blocks and whole networks, and measures the machine's speed in the same rounds.

Shape suffixes: P processes, N networks, A blocks that are timed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from devices.device import Device
from devices.measure import Failure, measure, time_models
from devices.timing import Timing, TimingPolicy
from latency_tables.info import TableInfo
from latency_tables.onnx_files import ModelFiles
from latency_tables.table import LatencyTable, describe_block, row_key
from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.blocks import PlacedBlock
from ofa.families import lower
from ofa.inventory import blocks_of_space
from ofa.journal import UNKEPT, Steps, digest_of
from ofa.progress import Progress
from ofa.resolution import Resolution
from ofa.schema import to_json
from ofa.space import Space

__all__ = [
    "PROCESSES",
    "Known",
    "NetworkTimes",
    "known_networks",
    "measure_blocks",
    "time_archs",
    "time_beside",
    "time_networks",
    "timing_inputs",
]

Lowered = Sequence[PlacedBlock]

Known = Mapping[str, tuple[Lowered, float]]
"""References by name: blocks or networks with their earlier latencies in ms. Timing them again gives the machine's present speed."""

_EXPORTED_WITHIN_MS = 2.0  # export time per round: exporting takes about 30 ms, and there are at least 15 rounds
_BLOCKS_AGAIN, _ANCHOR_SEED = 40, 0
_NETWORKS_AGAIN = 8
PROCESSES = 6
"""Default number of processes that time networks; memory layout differs between processes."""


def measure_blocks(
    blocks: Mapping[str, PlacedBlock],
    device: Device,
    *,
    anchors: Mapping[str, float],
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
) -> Iterator[tuple[str, Timing | Failure]]:
    """Time single blocks on a device by name; arguments, results and errors as ``devices.measure.measure``."""
    parts = 1 + 2 * _measuring_share(device)
    with ModelFiles(device) as files:
        paths = files.write({name: (placed,) for name, placed in blocks.items()}, _part(progress, 0, 1, parts))
        yield from measure(device, paths, rng=rng, progress=_part(progress, 1, parts, parts), policy=policy, anchors=anchors)


@dataclass(frozen=True, kw_only=True)
class NetworkTimes:
    """Latencies of whole networks in several processes.

    Attributes:
        times_PN: latency in ms by process and network, divided by the process's slowdown.
        slowdowns: by process, the machine's present latency relative to the first measurement of the references (above 1: slower); 1
            without references.
    """

    times_PN: Floats
    slowdowns: tuple[float, ...]

    @property
    def raw_ms(self) -> Floats:
        """Measured latencies in ms, by process and network; [P, N]."""
        raw_PN: Floats = self.times_PN * np.asarray(self.slowdowns)[:, None]
        return raw_PN

    @property
    def at_first_speed_ms(self) -> Floats:
        """Median latency of each network over the processes in ms, at the machine's speed when the references were first measured; [N]."""
        return _middle(self.times_PN)

    @property
    def typical_slowdown(self) -> float:
        """Median slowdown over the processes."""
        return float(np.median(self.slowdowns))

    @property
    def spread(self) -> float:
        """Largest deviation of a process's slowdown from the typical one, as a share."""
        return float(np.abs(np.asarray(self.slowdowns) / self.typical_slowdown - 1).max())

    @property
    def retimed_ms(self) -> tuple[Floats, Floats]:
        """Two independent measurements, by the even and by the odd processes; their difference is the noise floor."""
        return _middle(self.times_PN[::2]), _middle(self.times_PN[1::2])


def timing_inputs(origin: Mapping[str, Any], archs: Sequence[Arch], policy: TimingPolicy | None = None) -> dict[str, Any]:
    """The inputs of timing whole networks, for ``ofa.journal.Steps.begin``.

    Args:
        origin: device, software and hardware, as of ``devices.describe``.
        archs: the networks, or the networks that they are chosen from.
        policy: stopping rule of the measurements.
    """
    place = {name: origin[name] for name in ("device", "runtime_version", "processor", "gpu")}
    return {**place, "policy": to_json(policy or TimingPolicy()), "networks": digest_of([arch.to_json() for arch in archs])}


def time_networks(
    table: LatencyTable,
    space: Space,
    archs: Sequence[Arch],
    device: Device,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
    processes: int = PROCESSES,
    since_calibration: bool = False,
    steps: Steps = UNKEPT,
) -> NetworkTimes:
    """Time whole networks with random weights, and the machine's speed relative to when the table was measured.

    The speed of a machine drifts by some percent from minute to minute and between processes. So reference blocks, always the same ones of
    a table, are timed again in the same rounds, and their latencies against the table give the slowdown. The rounds are spread over several
    processes, whose differences show the uncertainty of any measurement.

    Overhead outside the blocks (for example weight traffic through a shared cache) drifts independently. With ``since_calibration`` the
    table's calibration networks, if it has any, replace the reference blocks.

    Each process is one of ``steps``, which the caller has begun.

    Raises:
        TableError: the table lacks blocks, or its rows are estimates and blocks are needed as references.
        DeviceError: as ``devices.measure.time_models``.
    """
    table.require(space, lower(space, archs[0]))
    known = known_networks(table.info, space) if since_calibration else {}
    known = known or _known_blocks(table, space, {arch.resolution for arch in archs})
    return time_beside(known, space, archs, device, rng=rng, progress=progress, policy=policy, processes=processes, steps=steps)


def time_beside(
    known: Known,
    space: Space,
    archs: Sequence[Arch],
    device: Device,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
    processes: int = PROCESSES,
    files: ModelFiles | None = None,
    steps: Steps = UNKEPT,
    part: str = "",
) -> NetworkTimes:
    """Time whole networks like ``time_networks``, with the caller's references for the machine's speed, or with none.

    Args:
        known: the references; without any, latencies are not converted.
        space: the space of ``archs``.
        archs: the networks.
        device: the device that times them.
        rng: draws the inputs and the order of measurement.
        progress: receives the progress.
        policy: stopping rule over all processes, which share its rounds.
        processes: number of processes.
        files: earlier exports, for callers that time repeatedly.
        steps: journal that keeps the measurements of each process; begun by the caller.
        part: prefix of the steps' keys, different in each call.

    Raises:
        DeviceError: as ``devices.measure.time_models``.
    """
    networks = {f"network {i} of {len(archs)}": lower(space, arch) for i, arch in enumerate(archs, start=1)}
    named = {**networks, **{name: lowered for name, (lowered, _) in known.items()}}
    with ModelFiles(device) if files is None else nullcontext(files) as opened:
        runs = _time(named, device, opened, rng=rng, progress=progress, policy=policy, processes=processes, steps=steps, part=part)
    before_A = np.array([ms for _, ms in known.values()])
    slowdowns = [_slowdown(np.array([run[name] for name in known]), before_A) if known else 1.0 for run in runs]
    times_PN = np.array([[run[name] for name in networks] for run in runs]) / np.array(slowdowns)[:, None]
    return NetworkTimes(times_PN=times_PN, slowdowns=tuple(slowdowns))


def time_archs(
    space: Space,
    archs: Sequence[Arch],
    device: Device,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
    processes: int = PROCESSES,
    steps: Steps = UNKEPT,
) -> Floats:
    """Median latencies of whole networks over several processes in ms [N], on a device without a table.

    Raises:
        DeviceError: as ``devices.measure.time_models``.
    """
    times = time_beside({}, space, archs, device, rng=rng, progress=progress, policy=policy, processes=processes, steps=steps)
    return times.at_first_speed_ms


def known_networks(info: TableInfo, space: Space) -> Known:
    """Some of a table's calibration networks, from the fastest to the slowest, with their latencies at the machine's typical speed.

    Empty if the table has no calibration networks, or has some of another space.

    Args:
        info: metadata of the table.
        space: the space of the networks.
    """
    then = sorted((network.measured_ms, number) for number, network in enumerate(info.networks))
    chosen = [then[round(i)] for i in np.linspace(0, len(then) - 1, min(_NETWORKS_AGAIN, len(then)))]
    archs = {number: info.networks[number].arch for _, number in chosen}
    if not all(arch in space for arch in archs.values()):
        return {}
    return {f"known network {number} again": (lower(space, archs[number]), ms) for ms, number in chosen}


def _known_blocks(table: LatencyTable, space: Space, resolutions: Iterable[Resolution]) -> Known:
    """Reference blocks for the machine's speed; always the same ones of a table, so that slowdowns are comparable."""
    table.require_measured()
    there = [placed for placed in blocks_of_space(space, resolutions) if placed in table]
    chosen = [there[i] for i in np.random.default_rng(_ANCHOR_SEED).permutation(len(there))[:_BLOCKS_AGAIN]]
    return {f"{describe_block(placed)} again": ((placed,), table.latency_ms(placed)) for placed in chosen}


def _slowdown(now_A: Floats, before_A: Floats) -> float:
    """Median slowdown of the references, weighted by their latency, as blocks contribute to a network."""
    ratios_A = now_A / before_A
    order = np.argsort(ratios_A)
    reached_A = np.cumsum(before_A[order]) / before_A.sum()
    return float(ratios_A[order][np.searchsorted(reached_A, 0.5)])


def _time(
    named: Mapping[str, Lowered],
    device: Device,
    files: ModelFiles,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None,
    processes: int,
    steps: Steps,
    part: str,
) -> list[dict[str, float]]:
    """Median latencies in ms by process; the processes share the policy's rounds, and everything is exported once."""
    share = _share_of(policy or TimingPolicy(), processes)
    # One group, so that all are timed in the same rounds.
    share = replace(share, group_size=max(share.group_size, len(named)))
    ahead = _measuring_share(device)
    parts = 1 + processes * ahead
    paths: dict[str, Path] = {}

    def time_in(number: int) -> dict[str, float]:
        if not paths:  # nothing is exported if the journal has all measurements
            paths.update(files.write(named, _part(progress, 0, 1, parts)))
        own = _part(progress, 1 + number * ahead, 1 + (number + 1) * ahead, parts)
        timings = time_models(device, paths, rng=rng, policy=share, progress=own)
        return {name: timing.median_ms for name, timing in timings.items()}

    # The key contains the networks: a journal may hold measurements of another choice of networks.
    timed = digest_of([[row_key(placed) for placed in lowered] for lowered in named.values()])
    return [
        steps.once(f"{part}process {number + 1} of {processes}, networks {timed}", partial(time_in, number), Mapping[str, float], rng=rng)
        for number in range(processes)
    ]


def _measuring_share(device: Device) -> int:
    """Approximate ratio of measuring to exporting time, which pauses dominate if there are any."""
    return 1 + round(device.pause_ms / _EXPORTED_WITHIN_MS)


def _part(progress: Progress, begin: int, end: int, parts: int) -> Progress:
    """A progress that maps its own steps to the range ``begin`` to ``end`` of ``parts``."""

    def report(done: int, total: int, text: str = "") -> None:
        progress(begin * total + (end - begin) * done, parts * total, text)

    return report


def _share_of(policy: TimingPolicy, processes: int) -> TimingPolicy:
    least, most = (max(2, math.ceil(rounds / processes)) for rounds in (policy.min_rounds, policy.max_rounds))
    return replace(policy, min_rounds=least, max_rounds=most, energy_s=0.0)  # only blocks have energies in a table


def _middle(times_PN: Floats) -> Floats:
    middle_N: Floats = np.median(times_PN, axis=0)
    return middle_N
