"""What a path holds: a front, a latency table, or the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from latency_tables import LatencyTable
from ofa.errors import FileError
from search.report.training import RunRecord, read_run

if TYPE_CHECKING:
    from search.front import Front

__all__ = ["Source", "read_source"]

Source = "Front | LatencyTable | RunRecord"

_TABLE = b"ofa_latency_table"


def read_source(path: str | os.PathLike[str]) -> Front | LatencyTable | RunRecord:
    """Read a front (`ofa search`), a latency table (`ofa table`) or the folder of a run (`ofa train`).

    Raises:
        OfaError: it is none of them, damaged, or of a newer version; the message says what to do.
    """
    from search.front import Front

    place = Path(path)
    if place.is_dir():
        return read_run(place)
    if not place.exists():
        raise FileError(f"a report must be of a file or folder that is there, but '{path}' is not; check the path")
    try:
        keys = pq.read_schema(place).metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise FileError(
            f"a report must be of a front, a latency table or the folder of a run, but '{path}' is no whole Parquet file; "
            "name what ofa search, ofa table or ofa train wrote"
        ) from error
    return LatencyTable.load(place) if _TABLE in keys else Front.load(place)
