"""Times blocks and whole networks, and tells how fast the machine is meanwhile.

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
"""Blocks or networks by any names, with the ms that they took before: how they do now tells how fast the machine is."""

_EXPORTED_WITHIN_MS = 2.0  # of a round's pause: exporting takes some 30 ms, and there are 15 rounds at least
_BLOCKS_AGAIN, _ANCHOR_SEED = 40, 0
_NETWORKS_AGAIN = 8
PROCESSES = 6
"""In which networks are timed: each finds its memory elsewhere."""


def measure_blocks(
    blocks: Mapping[str, PlacedBlock],
    device: Device,
    *,
    anchors: Mapping[str, float],
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
) -> Iterator[tuple[str, Timing | Failure]]:
    """Time single blocks on a device, by any names; arguments, results and errors as ``devices.measure.measure``."""
    parts = 1 + 2 * _measuring_share(device)
    with ModelFiles(device) as files:
        paths = files.write({name: (placed,) for name, placed in blocks.items()}, _part(progress, 0, 1, parts))
        yield from measure(device, paths, rng=rng, progress=_part(progress, 1, parts, parts), policy=policy, anchors=anchors)


@dataclass(frozen=True, kw_only=True)
class NetworkTimes:
    """What whole networks took in several processes.

    Attributes:
        times_PN: in ms, by process and network, each divided by its process's slowdown.
        slowdowns: by process, how much slower the machine was than when what tells its speed was measured first; 1 where nothing tells.
    """

    times_PN: Floats
    slowdowns: tuple[float, ...]

    @property
    def raw_ms(self) -> Floats:
        """The times as the clock showed them, by process and network [P, N]."""
        raw_PN: Floats = self.times_PN * np.asarray(self.slowdowns)[:, None]
        return raw_PN

    @property
    def at_first_speed_ms(self) -> Floats:
        """Of each network the median over the processes [N]."""
        return _middle(self.times_PN)

    @property
    def typical_slowdown(self) -> float:
        """The median over the processes."""
        return float(np.median(self.slowdowns))

    @property
    def spread(self) -> float:
        """The farthest that a process was from the typical one, as a share of it."""
        return float(np.abs(np.asarray(self.slowdowns) / self.typical_slowdown - 1).max())

    @property
    def retimed_ms(self) -> tuple[Floats, Floats]:
        """The same networks timed twice: by every other process, and by those between. How far the two differ is the noise floor."""
        return _middle(self.times_PN[::2]), _middle(self.times_PN[1::2])


def timing_inputs(origin: Mapping[str, Any], archs: Sequence[Arch], policy: TimingPolicy | None = None) -> dict[str, Any]:
    """What decides the steps of timing whole networks, for ``ofa.journal.Steps.begin``.

    Args:
        origin: the device, its software and hardware, as ``devices.describe`` has it.
        archs: the networks, or those that they are chosen from.
        policy: by which they are timed.
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
    """Time whole networks with random weights, and how fast the machine is beside the time when a table was measured.

    Machines are some percent faster or slower from minute to minute and from process to process, which says nothing of networks and
    blocks. So some blocks are timed again in the same rounds, the same ones at every time, and how they do against the table tells by
    how much; and the rounds are spread over several processes, whose differences tell how sure any measurement can be.

    What a network takes beyond its blocks, such as fetching weights from behind a cache that neighbours share, changes by itself. With
    ``since_calibration``, networks that the table was calibrated by are timed again in place of the blocks, if it has some.

    Each process is one of ``steps``, which the caller has begun.

    Raises:
        TableError: the table lacks blocks, or its rows are estimates where blocks are to tell the speed.
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
    """Time whole networks as ``time_networks`` does, beside blocks or networks that the caller knows the times of, or beside none.

    Args:
        known: they tell the machine's speed; none leaves the times as they are.
        space: of ``archs``.
        archs: the networks.
        device: where they are timed.
        rng: inputs and order of measurement.
        progress: told how far it is.
        policy: of all processes together, which share its rounds.
        processes: how many.
        files: holds what was exported before, for callers who time again and again.
        steps: keeps what each process measured; begun by the caller.
        part: of the work that this is, another one each time; ahead of the steps' keys.

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
    """What whole networks take in ms [N], the median over several processes, on a device of which there is no table.

    Raises:
        DeviceError: as ``devices.measure.time_models``.
    """
    times = time_beside({}, space, archs, device, rng=rng, progress=progress, policy=policy, processes=processes, steps=steps)
    return times.at_first_speed_ms


def known_networks(info: TableInfo, space: Space) -> Known:
    """Some of the networks that a table was calibrated by, from the fastest to the slowest, with what they take.

    Those times are of the machine's typical speed. There are none if the table has no such networks, or some of another space.

    Args:
        info: of the table.
        space: the networks must be of it.
    """
    then = sorted((network.measured_ms, number) for number, network in enumerate(info.networks))
    chosen = [then[round(i)] for i in np.linspace(0, len(then) - 1, min(_NETWORKS_AGAIN, len(then)))]
    archs = {number: info.networks[number].arch for _, number in chosen}
    if not all(arch in space for arch in archs.values()):
        return {}
    return {f"known network {number} again": (lower(space, archs[number]), ms) for ms, number in chosen}


def _known_blocks(table: LatencyTable, space: Space, resolutions: Iterable[Resolution]) -> Known:
    """Blocks by which the machine's speed is told; always the same ones of a table, so that all that is told by them is comparable."""
    table.require_measured()
    there = [placed for placed in blocks_of_space(space, resolutions) if placed in table]
    chosen = [there[i] for i in np.random.default_rng(_ANCHOR_SEED).permutation(len(there))[:_BLOCKS_AGAIN]]
    return {f"{describe_block(placed)} again": ((placed,), table.latency_ms(placed)) for placed in chosen}


def _slowdown(now_A: Floats, before_A: Floats) -> float:
    """The median of how much slower they have become, each counting by its time, as a block does in a network."""
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
    """The medians in ms of each process, which share the rounds of the policy; all is exported once."""
    share = _share_of(policy or TimingPolicy(), processes)
    # All in one group, so that each is compared with each in the same rounds.
    share = replace(share, group_size=max(share.group_size, len(named)))
    ahead = _measuring_share(device)
    parts = 1 + processes * ahead
    paths: dict[str, Path] = {}

    def time_in(number: int) -> dict[str, float]:
        if not paths:  # where all is kept, nothing is exported
            paths.update(files.write(named, _part(progress, 0, 1, parts)))
        own = _part(progress, 1 + number * ahead, 1 + (number + 1) * ahead, parts)
        timings = time_models(device, paths, rng=rng, policy=share, progress=own)
        return {name: timing.median_ms for name, timing in timings.items()}

    # What is kept may be of another choice of networks, where what it was made by has changed since.
    timed = digest_of([[row_key(placed) for placed in lowered] for lowered in named.values()])
    return [
        steps.once(f"{part}process {number + 1} of {processes}, networks {timed}", partial(time_in, number), Mapping[str, float], rng=rng)
        for number in range(processes)
    ]


def _measuring_share(device: Device) -> int:
    """How many times as long networks are measured as exported, roughly; pauses are most of it where there are some."""
    return 1 + round(device.pause_ms / _EXPORTED_WITHIN_MS)


def _part(progress: Progress, begin: int, end: int, parts: int) -> Progress:
    """What reports its own steps as those from ``begin`` to ``end`` of a whole of so many ``parts``."""

    def report(done: int, total: int, text: str = "") -> None:
        progress(begin * total + (end - begin) * done, parts * total, text)

    return report


def _share_of(policy: TimingPolicy, processes: int) -> TimingPolicy:
    least, most = (max(2, math.ceil(rounds / processes)) for rounds in (policy.min_rounds, policy.max_rounds))
    return replace(policy, min_rounds=least, max_rounds=most, energy_s=0.0)  # a table has the energy of blocks only


def _middle(times_PN: Floats) -> Floats:
    middle_N: Floats = np.median(times_PN, axis=0)
    return middle_N
