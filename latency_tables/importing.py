"""Imports published latency tables."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from devices.timing import Timing
from latency_tables.info import PublishedFile, TableInfo
from latency_tables.table import LatencyTable, describe_block, row_of, rows_frame
from ofa.blocks import Block, PlacedBlock, Shape
from ofa.errors import TableError
from ofa.interop.mit_tables import Measurement, MitTable, load_mit_table
from ofa.inventory import blocks_of_space
from ofa.parquet import now
from ofa.resolution import resolution_to_json, resolutions_to_json
from ofa.space import Space

__all__ = ["IMPORTED", "import_mit_tables"]

IMPORTED = "imported"
"""Runtime name of imported devices. No runtime has this name, so nothing can be added to an imported table."""

_UNKNOWN = "unknown"
_NOTE = (
    "Measured and published by others; date is the date of the import. They publish mean (here median_ms) and standard deviation of each "
    "block; p90_ms and min_ms are not known."
)


def import_mit_tables(
    paths: Iterable[str | os.PathLike[str]], space: Space, *, device: str, precision: str = "fp32", batch: int = 1
) -> LatencyTable:
    """Read MIT's lookup tables, one file for each image size.

    Files and space must have the same blocks at these sizes. A block with the same input size in several files, such as the classifier
    after pooling, gets the mean over all of their calls.

    Args:
        paths: paths of the YAML files.
        space: the space that they were measured for.
        device: a name for the device that they were measured on.
        precision: number format according to the publisher; the files do not contain it.
        batch: batch size according to the publisher; the files do not contain it.

    Returns:
        The table.

    Raises:
        FileError: a file is absent or unreadable.
        TableError: a file is no such table, does not fit the space, or has the image size of another; ``device`` is empty, or ``batch``
            is below 1.
    """
    if not device.strip() or batch < 1:
        raise TableError(
            f"a table needs the name of a device and a batch of at least 1, but got '{device}' and {batch}; give those of the measurement"
        )
    tables = [load_mit_table(path) for path in paths]
    _check_sizes(tables, space)
    found: dict[PlacedBlock, list[Measurement]] = {}
    named: dict[tuple[Block, Shape], PlacedBlock] = {}
    for table in tables:
        for placed, measured in _matched(table, space):
            found.setdefault(named.setdefault((placed.block, placed.input), placed), []).append(measured)
    rows = [row_of(placed, _timing(Measurement.pooled(each)), batch=batch, precision=precision) for placed, each in found.items()]
    return LatencyTable(rows_frame(rows), _info(tables, space, device, precision, batch))


def _check_sizes(tables: Sequence[MitTable], space: Space) -> None:
    if not tables:
        raise TableError("an import must be given files, but got none; name at least one")
    by_size: dict[int, MitTable] = {}
    for table in tables:
        size = table.resolution
        if size not in space.resolutions:
            raise TableError(
                f"a table's image size must be one of {space.name}, {resolutions_to_json(space.resolutions)} px, but '{table.path}' is of "
                f"{size} px; leave that file out or name another space"
            )
        if size in by_size:
            raise TableError(
                f"there must be one file for each image size, but '{by_size[size].path}' and '{table.path}' are both of {size} px; "
                "leave one out"
            )
        by_size[size] = table


def _matched(table: MitTable, space: Space) -> list[tuple[PlacedBlock, Measurement]]:
    """The blocks of the space at a file's image size, with the file's measurements."""
    blocks = blocks_of_space(space, [table.resolution])
    used = {name for placed in blocks for name in table.entries_of(placed)}
    strange = [name for name in table.entries if name not in used]
    if strange:
        raise TableError(
            f"all entries of '{table.path}' must be of blocks of {space.name} at {table.resolution} px, but {len(strange)} of "
            f"{len(table.entries)} are not, first '{strange[0]}'; name the space that it was measured for, if there is one"
        )
    measured = [(placed, table.measurement(placed)) for placed in blocks]
    missing = [placed for placed, measurement in measured if measurement is None]
    if missing:
        raise TableError(
            f"'{table.path}' must hold all blocks of {space.name} at {table.resolution} px, but lacks {len(missing)} of {len(blocks)}, "
            f"first {describe_block(missing[0])}; take the complete file or name the space that it was measured for"
        )
    return [(placed, measurement) for placed, measurement in measured if measurement is not None]


def _timing(measured: Measurement) -> Timing:
    return Timing(median_ms=measured.mean_ms, p90_ms=math.nan, min_ms=math.nan, std_ms=measured.std_ms, repeats=measured.count)


def _info(tables: Sequence[MitTable], space: Space, device: str, precision: str, batch: int) -> TableInfo:
    """Metadata of the table, as far as the publisher states it."""
    fields = {"name": device, "runtime": IMPORTED, "precision": precision, "batch": batch, "clocks": _UNKNOWN}
    fields |= dict.fromkeys(("threads", "pause_ms"))
    origin = TableInfo.of_origin({"device": fields, "runtime_version": _UNKNOWN, "processor": _UNKNOWN, "date": now()})
    sources = tuple(
        PublishedFile(name=table.path.name, sha256=table.sha256, resolution=resolution_to_json(table.resolution)) for table in tables
    )
    return replace(origin.with_space(space, [table.resolution for table in tables]), sources=sources, note=_NOTE)
