"""Networks and blocks as files that a device can time: built, given weights, exported."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from devices.device import Device
from devices.measure import time_models
from devices.timing import Timing, TimingPolicy
from latency_tables.table import LatencyTable, describe_block
from ofa.arch import Arch
from ofa.blocks import PlacedBlock, build_network
from ofa.export.onnx import export
from ofa.families import lower
from ofa.progress import Progress
from ofa.space import Space

__all__ = ["NetworkTimes", "time_blocks", "time_networks"]

Lowered = Sequence[PlacedBlock]


def time_blocks(
    blocks: Mapping[str, PlacedBlock], device: Device, *, rng: np.random.Generator, progress: Progress, policy: TimingPolicy | None = None
) -> dict[str, Timing]:
    """Time single blocks on a device, by any names; errors as ``devices.measure.time_models``."""
    return _time({name: (placed,) for name, placed in blocks.items()}, device, rng=rng, progress=progress, policy=policy)[0]


@dataclass(frozen=True, kw_only=True)
class NetworkTimes:
    """What whole networks took in several processes.

    Attributes:
        at_table_speed_ms: of each network the median over the processes, each divided by its process's slowdown.
        slowdowns: by process, how much slower the machine was than when the table was measured.
    """

    at_table_speed_ms: tuple[float, ...]
    slowdowns: tuple[float, ...]

    @property
    def typical_slowdown(self) -> float:
        """The median over the processes."""
        return float(np.median(self.slowdowns))

    @property
    def spread(self) -> float:
        """The farthest that a process was from the typical one, as a share of it."""
        return float(np.abs(np.asarray(self.slowdowns) / self.typical_slowdown - 1).max())


def time_networks(
    table: LatencyTable,
    space: Space,
    archs: Sequence[Arch],
    device: Device,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
    processes: int = 5,
) -> NetworkTimes:
    """Time whole networks with random weights, and how fast the machine is beside the time when a table was measured.

    Machines are some percent faster or slower from minute to minute and from process to process, which says nothing of networks and
    blocks. So the blocks of one of the networks are timed again in the same rounds, and how they do against the table tells by how
    much; and the rounds are spread over several processes, whose differences tell how sure any measurement can be.

    Raises:
        TableError: the table lacks blocks.
        DeviceError: as ``devices.measure.time_models``.
    """
    networks = {f"network {i} of {len(archs)}": lower(space, arch) for i, arch in enumerate(archs, start=1)}
    middle = lower(space, archs[len(archs) // 2])
    table.require(space, middle)
    anchors = {f"{describe_block(placed)} again": (placed,) for placed in middle}
    runs = _time({**networks, **anchors}, device, rng=rng, progress=progress, policy=policy, processes=processes)
    slowdowns = [float(np.median([run[name].median_ms / table.latency_ms(placed) for name, (placed,) in anchors.items()])) for run in runs]
    times_PN = np.array([[run[name].median_ms for name in networks] for run in runs]) / np.array(slowdowns)[:, None]
    return NetworkTimes(at_table_speed_ms=tuple(np.median(times_PN, axis=0).tolist()), slowdowns=tuple(slowdowns))


def _time(
    named: Mapping[str, Lowered],
    device: Device,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None,
    processes: int = 1,
) -> list[dict[str, Timing]]:
    """Export once and time in each process, which share the rounds of the policy.

    A third of the progress is the export's, which is nothing beside many rounds but all that happens at first.
    """
    total = 3 * len(named)
    share = _share_of(policy or TimingPolicy(), processes)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    with tempfile.TemporaryDirectory(prefix="ofa-") as folder:
        paths: dict[str, Path] = {}
        for i, (name, lowered) in enumerate(named.items()):
            progress(i, total, f"exporting {name}")
            paths[name] = Path(folder) / f"{i}.onnx"
            _export(lowered, device.batch, paths[name], generator)

        def timed(number: int) -> dict[str, Timing]:
            def report(done: int, total: int, text: str = "") -> None:
                progress(len(named) + (total * number + done) // processes, len(named) + total, text)

            return time_models(device, paths, rng=rng, policy=share, progress=report)

        return [timed(number) for number in range(processes)]


def _share_of(policy: TimingPolicy, processes: int) -> TimingPolicy:
    least, most = (max(2, math.ceil(rounds / processes)) for rounds in (policy.min_rounds, policy.max_rounds))
    return replace(policy, min_rounds=least, max_rounds=most)


def _export(lowered: Lowered, batch: int, path: Path, generator: torch.Generator) -> None:
    first = lowered[0]
    network = lowered[0].block.build() if len(lowered) == 1 else build_network(lowered)
    _randomize(network, generator)
    export(network.eval(), (batch, first.block.in_channels, first.input_size, first.input_size), path)


def _randomize(network: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep activations of order one (He et al., ICCV 2015).

    PyTorch's own initial weights shrink them at every layer, down to numbers so small that processors compute with them slowly.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
