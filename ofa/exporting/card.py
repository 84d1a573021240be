"""The card of a specialized network: its measured, computed and promised values, under the keys that all results use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ofa.costs import COSTS
from ofa.errors import ExportError
from ofa.latency import Latency
from ofa.reading import read_json
from ofa.seal import check_seal

__all__ = ["SCHEMA", "Card"]

SCHEMA = 3
_SEALED = 3
"""The first schema whose cards carry a checksum (``ofa.seal``) and name the files of their bundle."""

_NO_NUMBERS = ("metric", "device", "conditions", "measured_conditions", "precisions", "provenance", "files")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Values of one network; None means unknown.

    Attributes:
        accuracy: score of its task (0..1) on test images.
        metric: name of that score, such as ``accuracy`` or ``mAP``.
        latency_ms: promised latency of one image in ms; its interval is ``latency_low_ms`` to ``latency_high_ms``.
        measured_ms: measured latency of one call in ms.
        device: name of the device of the latencies.
        conditions: conditions of the promised latency, as JSON values of ``devices.Conditions``.
        measured_conditions: conditions of ``measured_ms``, likewise.
        costs: costs computed from the network alone, by name (``ofa.costs``); in JSON they are top-level keys.
        precisions: results of the network's other precisions, by name, such as the score beside the score in float32.
        provenance: origin of the network: data, supernet, recipe, seeds, versions, dates; JSON values.
        files: SHA-256 of the bundle's other files, by path within the bundle; a file that is being replaced is left out.

    Raises:
        ExportError: a number is negative, not a number, or an accuracy above 1.
    """

    accuracy: float | None = None
    metric: str = "accuracy"
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    measured_ms: float | None = None
    device: str | None = None
    conditions: Mapping[str, Any] | None = None
    measured_conditions: Mapping[str, Any] | None = None
    costs: Mapping[str, int] = field(default_factory=dict)
    precisions: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self._flat.items():
            if name in _NO_NUMBERS or value is None:
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value <= (1 if name == "accuracy" else float("inf"))
            ):
                span = "a share in 0..1" if name == "accuracy" else "a number that is not negative"
                raise ExportError(f"'{name}' of a card must be {span}, but is {value!r}; leave it out if it is not known")

    @property
    def _flat(self) -> dict[str, Any]:
        values = asdict(self)
        counted = values.pop("costs")
        return {**values, **dict.fromkeys(COSTS.names()), **counted}

    @property
    def latency(self) -> Latency | None:
        """The promised latency with its interval; None if there is none."""
        return None if self.latency_ms is None else Latency.of(self.latency_ms, self.latency_low_ms, self.latency_high_ms)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"schema": SCHEMA, **self._flat}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Card:
        """Read the card of a bundle.

        Raises:
            FileError: the file cannot be read, is not JSON, or does not match its checksum.
            ExportError: the file is no card, or is of a newer version.
        """
        value = read_json(path)
        schema = value.get("schema") if isinstance(value, dict) else None
        if not isinstance(schema, int) or "accuracy" not in value:  # other files have a schema too, but no accuracy
            raise ExportError(f"'{path}' must be a card, but has no schema version or no accuracy; write the bundle again")
        if schema > SCHEMA:
            raise ExportError(f"'{path}' has schema {schema}, but this version reads up to {SCHEMA}; upgrade with: pip install -U ofa-nas")
        if schema >= _SEALED:
            check_seal(path, required=True, what=f"'{os.fspath(path)}'")
        costs = {name: value[name] for name in COSTS.names() if value.get(name) is not None}
        # As in every file, unknown keys are ignored: they are of later versions, or costs of a user's own.
        return cls(**{name: content for name, content in value.items() if name in cls.__dataclass_fields__}, costs=costs)
