"""LatencyTable: latencies of blocks on one device, the correction to whole networks, and metadata."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from devices.conditions import Conditions
from devices.device import Device
from devices.timing import Timing
from latency_tables.correction import Correction
from latency_tables.info import LONGEST_MS, TableInfo
from ofa.blocks import Block, PlacedBlock
from ofa.cost import weight_bytes
from ofa.errors import TableError
from ofa.families import space_argument
from ofa.files import replacing
from ofa.journal import digest_of
from ofa.latency import Latency
from ofa.parquet import Kind
from ofa.resolution import resolution_to_json
from ofa.space import Space

__all__ = [
    "COLUMNS",
    "SCHEMA_VERSION",
    "SOMETIMES_EMPTY",
    "LatencyTable",
    "block_key",
    "describe_block",
    "row_key",
    "row_of",
    "rows_frame",
]

SCHEMA_VERSION = 3

SOMETIMES_EMPTY = ("energy_mj", "peak_memory_bytes")
COLUMNS = (
    *("kind", "block", "input_height_px", "input_width_px", "batch", "precision", "median_ms", "p90_ms", "min_ms", "std_ms", "repeats"),
    *SOMETIMES_EMPTY,
)
"""Columns of a table; ``block`` is the block's fields as canonical JSON. Energy and memory are empty if the device lacks them."""

_SIDES = ("input_height_px", "input_width_px")
_KEY = ("block", *_SIDES)
_MAY_BE_UNKNOWN = ("p90_ms", "min_ms", "std_ms", *SOMETIMES_EMPTY)
_NUMBERS = ("median_ms", "repeats", *_MAY_BE_UNKNOWN)


def _no_formula(cell: Any) -> Any:
    """A cell, quoted if a spreadsheet would execute it as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _of_squares(rows: pd.DataFrame) -> pd.DataFrame:
    """Convert rows of earlier versions, which had square inputs only."""
    if "input_size_px" not in rows:
        return rows
    rows = rows.rename(columns={"input_size_px": "input_height_px"})
    rows.insert(list(rows).index("input_height_px") + 1, "input_width_px", rows["input_height_px"])
    return rows


_FILES = Kind(
    name="latency table",
    info=TableInfo,
    schema=SCHEMA_VERSION,
    sealed=3,
    columns={**dict.fromkeys(COLUMNS, float), **dict.fromkeys(("kind", "block", "precision"), str), **dict.fromkeys(_SIDES, int)},
    renew=_of_squares,
    made_by="ofa table build",
    error=TableError,
)


@lru_cache(maxsize=65536)
def block_key(block: Block) -> str:
    """A block's kind and fields as canonical JSON: equal blocks have equal keys, in every process and version."""
    return json.dumps({"kind": block.kind, **dataclasses.asdict(block)}, sort_keys=True, separators=(",", ":"))


def row_key(placed: PlacedBlock) -> tuple[str, int, int]:
    """Key of a row: the block's key, and height and width of its input in pixels."""
    return block_key(placed.block), placed.input.height, placed.input.width


def describe_block(placed: PlacedBlock) -> str:
    """A short description of a block, such as ``inverted_residual 24->40 (stages.1.0) at 56 px``."""
    block = placed.block
    return f"{block.kind} {block.in_channels}->{block.out_channels} ({placed.name}) at {placed.input.extent}"


def row_of(placed: PlacedBlock, timing: Timing, *, batch: int, precision: str) -> dict[str, Any]:
    """One row of a table, by the names in ``COLUMNS``."""
    key = dict(zip(_KEY, row_key(placed), strict=True))
    return {"kind": placed.block.kind, **key, "batch": batch, "precision": precision, **dataclasses.asdict(timing)}


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Latencies of blocks on one device.

    Args:
        rows: one row for each block and input shape, with the columns ``COLUMNS``.
        info: device, spaces, and calibration.
        source: path of the file that it was read from, for messages; None without one.

    Raises:
        TableError: a column is missing, a block occurs twice, or a number is out of range.
    """

    rows: pd.DataFrame
    info: TableInfo
    source: str = ""

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.rows.columns]
        if missing:
            raise TableError(
                f"a latency table must have the columns {', '.join(COLUMNS)}, but {self.called} lacks {', '.join(missing)}; build it anew"
            )
        self._check_numbers()
        if len(self._latencies) < len(self.rows):
            raise TableError(f"a latency table must hold each block once, but {self.called} repeats some; build it anew")

    def _check_numbers(self) -> None:
        """Check that all numbers are finite and not negative, measured times positive; columns that publishers omit may be unknown."""
        for column in _NUMBERS:
            try:
                values = self.rows[column].to_numpy(dtype=float, na_value=math.nan)
            except (TypeError, ValueError) as error:
                raise self._no_number(column, "something else") from error
            most = LONGEST_MS if column.endswith("_ms") else math.inf
            wrong = ~((values >= 0) & (values < most) | (np.isnan(values) if column in _MAY_BE_UNKNOWN else False))
            if column == "median_ms" and self.info.estimated is None:
                wrong |= values == 0
            if wrong.any():
                raise self._no_number(column, f"{values[wrong][0]:g}")

    def _no_number(self, column: str, value: str) -> TableError:
        return TableError(f"a latency table must hold possible times and amounts, but {self.called} has {value} as {column}; build it anew")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device_name(self) -> str:
        """Name of its device."""
        return self.info.device_name

    @property
    def conditions(self) -> Conditions:
        """Measurement conditions of its latencies."""
        return self.info.conditions

    @property
    def correction(self) -> Correction | None:
        """The correction to whole networks; None if the table is not calibrated."""
        return self.info.calibration

    @cached_property
    def _latencies(self) -> dict[tuple[str, int, int], float]:
        return dict(zip(self.keys, self.rows["median_ms"].tolist(), strict=True))

    @cached_property
    def _energies(self) -> dict[tuple[str, int, int], float]:
        return dict(zip(self.keys, self.rows["energy_mj"].astype(float).tolist(), strict=True))

    @property
    def keys(self) -> list[tuple[str, int, int]]:
        """The ``row_key`` of every row."""
        return list(zip(*(self.rows[column].tolist() for column in _KEY), strict=True))

    @property
    def digest(self) -> str:
        """A short checksum of its rows; equal rows have equal digests."""
        return digest_of(self.rows[list(COLUMNS)].to_csv(index=False).encode())

    @property
    def called(self) -> str:
        """Words for the table in messages."""
        return f"table '{self.source}'" if self.source else "the table"

    def __contains__(self, placed: PlacedBlock) -> bool:
        return row_key(placed) in self._latencies

    def latency_ms(self, placed: PlacedBlock) -> float:
        """The median latency of a block in ms.

        Raises:
            TableError: the table lacks the block.
        """
        latency_ms = self._latencies.get(row_key(placed))
        if latency_ms is None:
            raise TableError(f"a block must be in the table, but {self.called} lacks {describe_block(placed)}; build the table anew")
        return latency_ms

    def energy_mj(self, placed: PlacedBlock) -> float:
        """The energy of one call of a block in mJ; NaN if the table lacks it."""
        return self._energies.get(row_key(placed), math.nan)

    def require(self, space: Space, lowered: Sequence[PlacedBlock]) -> None:
        """Check that the table has all blocks of a network: ``lowered``, of ``space``.

        Raises:
            TableError: blocks are missing; the message has their number, the first of them, and the command that measures them.
        """
        missing = [placed for placed in lowered if placed not in self]
        if missing:
            remedy = (
                "it was measured by others, so take networks of its resolutions only"
                if self.info.sources
                else f"measure them with: ofa table build --space {space_argument(space)} --device {self.device_name} --resolutions "
                f"{resolution_to_json(lowered[0].input.size)} --classes {space.num_classes} --resume -o {self.source or 'TABLE.parquet'}"
            )
            raise TableError(
                f"a table must hold all blocks of a network, but {self.called} lacks {len(missing)} of {len(lowered)}, first "
                f"{describe_block(missing[0])}; {remedy}"
            )

    def require_space(self, space: Space) -> None:
        """Check that the table was built for this space, and not for another one of the same name.

        Raises:
            TableError: it was built for another space.
        """
        spaces = self.info.spaces
        if space.name not in spaces:
            raise TableError(
                f"a table must be of the space it is used for, but this one is of {', '.join(spaces)} and not of {space.name}; "
                f"build one with: ofa table build --space {space_argument(space)} --device {self.device_name}"
            )
        self.info.check_same(space, self.called)

    def require_device(self, device: Device) -> None:
        """Check that the table was measured on this device with the same settings.

        Raises:
            TableError: the table is of another device, or of other settings.
        """
        self.info.of_device(device, self.called)

    def require_measured(self) -> None:
        """Check that the rows are measured, so that new measurements can be compared with them and added.

        Raises:
            TableError: the rows are estimates from whole networks.
        """
        if self.info.estimated is not None:
            raise TableError(
                f"a table must hold measured blocks to be calibrated or continued, but the rows of {self.called} are estimates from "
                f"{self.info.estimated.nets} networks; build one with: ofa table build --device {self.device_name}"
            )

    def estimate(self, space: Space, lowered: Sequence[PlacedBlock]) -> Latency:
        """The latency in ms of a network of ``space`` from its blocks ``lowered``, corrected if the table is calibrated.

        Raises:
            TableError: blocks are missing; see ``require``.
        """
        latencies = self._latencies
        try:
            sum_ms = sum([latencies[row_key(placed)] for placed in lowered])
        except KeyError:
            self.require(space, lowered)
            raise
        return self.corrected(sum_ms, weight_bytes(lowered))

    def corrected(self, sum_ms: float, weight_bytes: int) -> Latency:
        """The latency of a network with the sum of blocks ``sum_ms`` and ``weight_bytes`` bytes of weights."""
        return Latency(latency_ms=sum_ms) if self.correction is None else self.correction.apply(sum_ms, weight_bytes)

    def with_info(self, **changes: Any) -> LatencyTable:
        """A copy with some fields of ``info`` replaced."""
        return LatencyTable(self.rows, dataclasses.replace(self.info, **changes), self.source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as a Parquet file with ``info``; a path that ends in ``.csv`` gets the rows only.

        Raises:
            FileError: the file cannot be written.
        """
        if Path(path).suffix == ".csv":
            with replacing(path) as temporary:
                self.rows.map(_no_formula).to_csv(temporary, index=False)
            return
        _FILES.write(self.rows, self.info, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Read a table that ``save`` wrote as Parquet.

        Raises:
            TableError: the file is absent, damaged, no latency table, or of a newer schema.
        """
        rows, info = _FILES.read(path)
        return cls(rows, info, os.fspath(path))


def rows_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame with the columns of a table, even without rows."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(SOMETIMES_EMPTY, "float64"))
