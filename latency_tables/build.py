"""Builds a table: exports every block of a space once, times it on a device, and writes each measurement to a journal at once."""

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
    """Measure every block of a space.

    Blocks that cannot be measured, because the runtime rejects them, crashes or hangs, are left out; ``info.failed`` has the reasons.

    Args:
        space: the space.
        device: the device that times the blocks.
        resolutions: input resolutions in pixels; None for all of the space.
        rng: draws the inputs and the order of measurement.
        progress: receives the progress.
        policy: stopping rule of a measurement; see ``devices.timing``.
        resume_from: a table of the same device, whose rows are kept and not measured again. Its calibration is dropped if rows are added.
        journal: keeps each row as soon as it is measured, and provides the rows of an interrupted build; entered by the caller.

    Returns:
        The table, not calibrated unless ``resume_from`` was complete and calibrated.

    Raises:
        SpaceError: the space lacks a resolution.
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
    """The rows that are already measured: of a table and of a journal."""
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
    """Some blocks that were measured before; timing them again shows how the machine's speed has changed."""
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
    """Rows of the measured blocks, and the reasons of failure by block."""
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
        raise DeviceError(f"{error}; {len(journal.rows)} blocks are kept in '{journal.path}', add --resume to continue") from error
    return rows, failed


def _check_same_origin(there: TableInfo, here: TableInfo) -> None:
    for key in _MUST_AGREE:
        if getattr(there, key) != getattr(here, key):  # earlier tables name no GPU: none was measured on one
            raise TableError(
                f"a table can only be continued on the machine that began it, but its {key.replace('_', ' ')} is {getattr(there, key)!r} "
                f"and here it is {getattr(here, key)!r}; build a new table"
            )
