"""Reads the source of a report from a path: a front, a latency table, or the folder of a run."""

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
        OfaError: the path holds none of them, or a file is damaged or of a newer version.
    """
    from search.front.front import Front

    place = Path(path)
    if os.path.isdir(place):
        return read_run(place)
    if not os.path.exists(place):
        raise FileError(f"a report needs an existing file or folder, but '{path}' does not exist; check the path")
    try:
        kind = kind_of(place)
    except FileError as error:
        raise FileError(
            f"a report needs a readable file or folder, but '{path}' cannot be read: {reason_of(error)}; check the path"
        ) from error
    if kind is None:
        raise FileError(
            f"a report must be of a front, a latency table or the folder of a run, but '{path}' is no complete Parquet file of ofa; "
            "name what ofa search, ofa table or ofa train wrote"
        )
    return LatencyTable.load(place) if kind == "latency table" else Front.load(place)
