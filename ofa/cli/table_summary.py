"""The summary of a latency table in the output of commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latency_tables import LatencyTable

__all__ = ["summary_of"]

_ALWAYS_SAID = ("processor", "gpu", "cores", "clock_policy", "load", "platform", "python_version", "date", "calibration")
"""Keys that are always in the JSON, null if unknown."""


def summary_of(table: LatencyTable, path: Path) -> dict[str, Any]:
    """The summary of a table in a file: its metadata without networks, and the number of its blocks."""
    from latency_tables.table import SCHEMA_VERSION
    from ofa.schema import to_json

    rest = {**dict.fromkeys(_ALWAYS_SAID), **to_json(table.info), "table": str(path)}
    rest.pop("networks")
    return {"schema_version": SCHEMA_VERSION, **rest, "blocks": len(table), "kinds": table.rows["kind"].value_counts().to_dict()}
