"""Files that were changed on purpose and sealed anew, so that what was changed is looked at and not the checksum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ofa.files import replacing
from ofa.seal import BLANK_SEAL, SEAL_KEY


def write_parquet(table: pa.Table, path: Path, **changes: Any) -> None:
    """A table with the metadata that it has, but for the changes; None takes a key away."""
    about = {**json.loads((table.schema.metadata or {}).get(b"ofa", b"{}")), SEAL_KEY: BLANK_SEAL, **changes}
    text = json.dumps({key: value for key, value in about.items() if value is not None})
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"ofa": text}), temporary)
