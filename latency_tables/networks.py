"""Networks and blocks as files that a device can time: built, given weights, exported."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
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

__all__ = ["time_blocks", "time_networks"]

Lowered = Sequence[PlacedBlock]


def time_blocks(
    blocks: Mapping[str, PlacedBlock], device: Device, *, rng: np.random.Generator, progress: Progress, policy: TimingPolicy | None = None
) -> dict[str, Timing]:
    """Time single blocks on a device, by any names; errors as ``devices.measure.time_models``."""
    return _time({name: (placed,) for name, placed in blocks.items()}, device, rng=rng, progress=progress, policy=policy)


def time_networks(
    table: LatencyTable,
    space: Space,
    archs: Sequence[Arch],
    device: Device,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None = None,
) -> tuple[list[float], float]:
    """Time whole networks with random weights, at the speed that the machine had when a table was measured.

    Machines are some percent faster or slower from hour to hour, which says nothing of networks and blocks. So the blocks of one of the
    networks are timed again in the same rounds, and how they do against the table tells by how much.

    Returns:
        the networks' medians in ms, divided by the slowdown; and the slowdown, above 1 where the machine is slower now.

    Raises:
        TableError: the table lacks blocks.
        DeviceError: as ``devices.measure.time_models``.
    """
    networks = {f"network {i} of {len(archs)}": lower(space, arch) for i, arch in enumerate(archs, start=1)}
    middle = lower(space, archs[len(archs) // 2])
    table.require(space, middle)
    anchors = {f"{describe_block(placed)} again": (placed,) for placed in middle}
    timings = _time({**networks, **anchors}, device, rng=rng, progress=progress, policy=policy)
    slowdown = float(np.median([timings[name].median_ms / table.latency_ms(placed) for name, (placed,) in anchors.items()]))
    return [timings[name].median_ms / slowdown for name in networks], slowdown


def _time(
    named: Mapping[str, Lowered], device: Device, *, rng: np.random.Generator, progress: Progress, policy: TimingPolicy | None
) -> dict[str, Timing]:
    """Export and time; a third of the progress is the export's, which is nothing beside many rounds but all that happens at first."""
    total = 3 * len(named)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    with tempfile.TemporaryDirectory(prefix="ofa-") as folder:
        paths: dict[str, Path] = {}
        for i, (name, lowered) in enumerate(named.items()):
            progress(i, total, f"exporting {name}")
            paths[name] = Path(folder) / f"{i}.onnx"
            _export(lowered, device.batch, paths[name], generator)
        return time_models(
            device, paths, rng=rng, policy=policy, progress=lambda done, _, text="": progress(len(named) + done, total, text)
        )


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
