"""Builds a table: finds the blocks of a space, exports each once, times them on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from devices.device import Device
from devices.measure import describe
from devices.timing import TimingPolicy
from latency_tables.inventory import blocks_of_space
from latency_tables.networks import time_blocks
from latency_tables.table import SCHEMA_VERSION, LatencyTable, describe_block, row_of, rows_frame
from ofa import __version__
from ofa.errors import TableError
from ofa.progress import Progress, silent
from ofa.space import Space

__all__ = ["build_table"]

_MUST_AGREE = ("runtime_version", "processor")


def build_table(
    space: Space,
    device: Device,
    *,
    resolutions: Iterable[int] | None = None,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    resume_from: LatencyTable | None = None,
) -> LatencyTable:
    """Measure every block that networks of a space are made of.

    Args:
        space: any space.
        device: where blocks are timed.
        resolutions: in pixels; by default all of the space's.
        rng: weights, inputs, order of measurement.
        progress: told how far it is.
        policy: when a measurement is enough; see ``devices.timing``.
        resume_from: a table of the same device, whose rows are kept and not measured again. A calibration is not kept when rows are added.

    Raises:
        SpaceError: a resolution that the space does not have.
        DeviceError: the device cannot measure.
        TableError: ``resume_from`` is of another device, runtime version or processor.
    """
    wanted = sorted(set(space.resolutions if resolutions is None else resolutions))
    blocks = blocks_of_space(space, wanted)
    origin = describe(device)
    if resume_from is not None:
        resume_from.require_device(device)
        _check_same_origin(resume_from, origin)
    new = [placed for placed in blocks if resume_from is None or placed not in resume_from]
    named = {f"{i} of {len(new)}: {describe_block(placed)}": placed for i, placed in enumerate(new, start=1)}
    timings = time_blocks(named, device, rng=rng, progress=progress, policy=policy)
    rows = rows_frame(row_of(named[name], timing, batch=device.batch, precision=device.precision) for name, timing in timings.items())
    old = {} if resume_from is None else resume_from.metadata
    metadata = {
        "schema_version": SCHEMA_VERSION,
        **origin,
        "ofa_version": __version__,
        "spaces": _merged(old.get("spaces", {}), space.name, wanted),
        "calibration": None if new else old.get("calibration"),
    }
    if resume_from is None:
        return LatencyTable(rows, metadata)
    joined = pd.concat([resume_from.rows, rows], ignore_index=True) if new else resume_from.rows
    return LatencyTable(joined, metadata, resume_from.source)


def _merged(spaces: Mapping[str, list[int]], name: str, resolutions: list[int]) -> dict[str, list[int]]:
    return {**spaces, name: sorted({*spaces.get(name, []), *resolutions})}


def _check_same_origin(table: LatencyTable, origin: Mapping[str, Any]) -> None:
    for key in _MUST_AGREE:
        if table.metadata[key] != origin[key]:
            raise TableError(
                f"a table can only be continued where it was begun, but its {key.replace('_', ' ')} is {table.metadata[key]!r} "
                f"and here it is {origin[key]!r}; build a new table"
            )
