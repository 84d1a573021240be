"""What a path holds: a front, a latency table, or the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from latency_tables import LatencyTable
from ofa.errors import FileError
from ofa.files import reason_of
from ofa.parquet import kind_of
from search.report.training import RunRecord, read_run

if TYPE_CHECKING:
    from search.front.front import Front

__all__ = ["Source", "read_source"]

Source = "Front | LatencyTable | RunRecord"


def read_source(path: str | os.PathLike[str]) -> Front | LatencyTable | RunRecord:
    """Read a front (`ofa search`), a latency table (`ofa table`) or the folder of a run (`ofa train`).

    Raises:
        OfaError: it is none of them, damaged, or of a newer version; the message says what to do.
    """
    from search.front.front import Front

    place = Path(path)
    if os.path.isdir(place):
        return read_run(place)
    if not os.path.exists(place):
        raise FileError(f"a report must be of a file or folder that is there, but '{path}' is not; check the path")
    try:
        kind = kind_of(place)
    except FileError as error:
        raise FileError(
            f"a report must be of a file or folder that can be read, but '{path}' cannot be: {reason_of(error)}; check the path"
        ) from error
    if kind is None:
        raise FileError(
            f"a report must be of a front, a latency table or the folder of a run, but '{path}' is no whole Parquet file of ofa; "
            "name what ofa search, ofa table or ofa train wrote"
        )
    return LatencyTable.load(place) if kind == "latency table" else Front.load(place)
