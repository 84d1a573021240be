"""What every command says of a latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latency_tables import LatencyTable

__all__ = ["summary_of"]

_ALWAYS_SAID = ("processor", "gpu", "cores", "clock_policy", "load", "platform", "python_version", "date", "calibration")
"""Of a table in JSON, null where it is not known."""


def summary_of(table: LatencyTable, path: Path) -> dict[str, Any]:
    """What every command says of a table in a file: all that is known of it but its networks, and the number of its blocks."""
    from latency_tables.table import SCHEMA_VERSION
    from ofa.schema import to_json

    rest = {**dict.fromkeys(_ALWAYS_SAID), **to_json(table.info), "table": str(path)}
    rest.pop("networks")
    return {"schema_version": SCHEMA_VERSION, **rest, "blocks": len(table), "kinds": table.rows["kind"].value_counts().to_dict()}
