"""Builds a table: finds the blocks of a space, exports each once, times them on a device, and keeps each as soon as it is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from devices.device import Device
from devices.measure import ANCHORS, Failure, describe
from devices.timing import TimingPolicy
from latency_tables.info import TableInfo
from latency_tables.journal import Journal
from latency_tables.table import LatencyTable, describe_block, row_of, rows_frame
from latency_tables.timing import measure_blocks
from ofa.blocks import PlacedBlock
from ofa.errors import DeviceError, TableError
from ofa.inventory import blocks_of_space
from ofa.progress import Progress, silent
from ofa.resolution import Resolution, ascending
from ofa.space import Space

__all__ = ["build_table"]

_MUST_AGREE = ("runtime_version", "processor", "gpu")


def build_table(
    space: Space,
    device: Device,
    *,
    resolutions: Iterable[Resolution] | None = None,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    resume_from: LatencyTable | None = None,
    journal: Journal | None = None,
) -> LatencyTable:
    """Measure every block that networks of a space are made of.

    Blocks that cannot be measured, because the runtime refuses them, crashes or hangs, are left out; ``info.failed`` says which
    and why.

    Args:
        space: any space.
        device: where blocks are timed.
        resolutions: in pixels; by default all of the space's.
        rng: inputs, order of measurement.
        progress: told how far it is.
        policy: when a measurement is enough; see ``devices.timing``.
        resume_from: a table of the same device, whose rows are kept and not measured again. A calibration is not kept when rows are added.
        journal: where rows are written as soon as they are known, and those of an earlier build are found; entered by the caller.

    Raises:
        SpaceError: a resolution that the space does not have.
        DeviceError: the device is unreachable, or its runtime is not installed.
        TableError: ``resume_from`` or ``journal`` is of another device, runtime version or processor, or of another space of this name.
    """
    wanted = ascending(space.resolutions if resolutions is None else resolutions)
    blocks = blocks_of_space(space, wanted)
    origin = describe(device)
    here = TableInfo.of_origin(origin)
    known = _known(resume_from, journal, device, here, origin)
    described = known.info.with_space(space, wanted)
    new = [placed for placed in blocks if placed not in known]
    rows, failed = _measure(new, _anchors(known, blocks, rng), device, journal, rng=rng, progress=progress, policy=policy)
    kept = ("spaces", "definitions", *(() if rows else ("calibration", "networks", "processes", "calibrated_with")))
    info = replace(here, failed=failed, **{name: getattr(described, name) for name in kept})
    joined = pd.concat([known.rows, rows_frame(rows)], ignore_index=True) if len(known) and rows else known.rows
    return LatencyTable(joined if len(known) else rows_frame(rows), info, known.source)


def _known(table: LatencyTable | None, journal: Journal | None, device: Device, here: TableInfo, origin: Mapping[str, Any]) -> LatencyTable:
    """What need not be measured: the rows of a table and of a journal."""
    rows, info, source = rows_frame([]), here, ""
    if table is not None:
        table.require_measured()
        table.require_device(device)
        _check_same_origin(table.info, here)
        rows, info, source = table.rows, table.info, table.source
    if journal is not None:
        if journal.origin is not None:
            begun = TableInfo.of_origin(journal.origin)
            begun.of_device(device, f"table '{journal.path}'")
            _check_same_origin(begun, here)
        journal.begin(origin)
        if journal.rows:
            kept = rows_frame(journal.rows)
            rows = kept if rows.empty else pd.concat([rows, kept], ignore_index=True)
            rows = rows.drop_duplicates(["block", "input_height_px", "input_width_px"], ignore_index=True)
            info = replace(info, calibration=None, networks=())
    return LatencyTable(rows, info, source)


def _anchors(known: LatencyTable, blocks: Sequence[PlacedBlock], rng: np.random.Generator) -> dict[str, tuple[PlacedBlock, float]]:
    """Some blocks that are known already, which tell by how much the machine's speed is another now."""
    there = [placed for placed in blocks if placed in known]
    chosen = [there[i] for i in rng.permutation(len(there))[:ANCHORS]]
    return {f"{describe_block(placed)} again": (placed, known.latency_ms(placed)) for placed in chosen}


def _measure(
    new: Sequence[PlacedBlock],
    anchors: Mapping[str, tuple[PlacedBlock, float]],
    device: Device,
    journal: Journal | None,
    *,
    rng: np.random.Generator,
    progress: Progress,
    policy: TimingPolicy | None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the blocks that could be measured, and why the others could not."""
    named = {f"{i} of {len(new)}: {describe_block(placed)}": placed for i, placed in enumerate(new, start=1)}
    every = {**named, **{name: placed for name, (placed, _) in anchors.items()}}
    speeds = {name: ms for name, (_, ms) in anchors.items()}
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    try:
        for name, outcome in measure_blocks(every, device, anchors=speeds, rng=rng, progress=progress, policy=policy) if named else ():
            if isinstance(outcome, Failure):
                failed[describe_block(named[name])] = outcome.reason
                continue
            rows.append(row_of(named[name], outcome, batch=device.batch, precision=device.precision))
            if journal is not None:
                journal.add(rows[-1])
    except DeviceError as error:
        if journal is None or not journal.rows:
            raise
        raise DeviceError(f"{error}; {len(journal.rows)} blocks are kept in '{journal.path}', add --resume to go on from them") from error
    return rows, failed


def _check_same_origin(there: TableInfo, here: TableInfo) -> None:
    for key in _MUST_AGREE:
        if getattr(there, key) != getattr(here, key):  # earlier tables do not name a GPU, as none was measured on one
            raise TableError(
                f"a table can only be continued where it was begun, but its {key.replace('_', ' ')} is {getattr(there, key)!r} "
                f"and here it is {getattr(here, key)!r}; build a new table"
            )
