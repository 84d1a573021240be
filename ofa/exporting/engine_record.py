"""The record that stands beside an engine: a JSON file with what the engine was built from and for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ofa.errors import ExportError
from ofa.files import write_json
from ofa.reading import read_json
from ofa.seal import check_seal

__all__ = ["EngineInfo", "EngineTensor", "read_record", "record_path", "write_record"]

_SCHEMA = 2
"""Since 2 records carry a checksum (``ofa.seal``)."""


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine.

    Attributes:
        name: as in the ONNX file.
        shape: sizes; -1 where the engine leaves the size open.
        dtype: TensorRT's name, such as ``FLOAT``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What is known of an engine.

    Attributes:
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the package that built it.
        compute_capabilities: CUDA compute capabilities it was built for; empty if that was left to the package.
        precision: ``fp32`` or ``fp16``, or None where nothing says so.
        inputs, outputs: its tensors.
        network_layers: layers of the parsed network, before fusion.
        network_precisions: numbers of its convolutions and products by the type that they compute in, such as ``INT8``.
        engine_layers: layers of the loaded engine; None where no GPU was there to load it.
        engine_precisions: numbers of those by the type that they read; None also where the engine does not describe its layers.
        engine_bytes: size of the file.
        engine_sha256, onnx_sha256: digests of the engine and of the ONNX file it was built from.
        created: when, UTC, ISO 8601.
    """

    flavour: str
    version: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    engine_bytes: int
    engine_sha256: str
    compute_capabilities: tuple[str, ...] = ()
    precision: str | None = None
    network_layers: int | None = None
    network_precisions: Mapping[str, int] = field(default_factory=dict)
    engine_layers: int | None = None
    engine_precisions: Mapping[str, int] | None = None
    onnx_sha256: str | None = None
    created: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"schema": _SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> EngineInfo:
        """Read what ``to_json`` wrote; ``ValueError``, ``TypeError`` or ``KeyError`` if it is something else."""
        fields = dict(value)
        if fields.pop("schema") not in range(1, _SCHEMA + 1):
            raise ValueError(f"its schema is {value['schema']}, this version of ofa reads up to {_SCHEMA}")
        for side in ("inputs", "outputs"):
            fields[side] = tuple(EngineTensor(each["name"], tuple(each["shape"]), each["dtype"]) for each in fields[side])
        fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
        return cls(**fields)


def record_path(engine_path: str | os.PathLike[str]) -> Path:
    """Where the record of an engine stands: ``network.engine`` has ``network.engine.json``."""
    path = Path(engine_path)
    return path.with_name(path.name + ".json")


def write_record(info: EngineInfo, engine_path: str | os.PathLike[str]) -> None:
    """Write the record of an engine, all or nothing."""
    write_json(info.to_json(), record_path(engine_path))


def read_record(engine_path: str | os.PathLike[str]) -> EngineInfo | None:
    """The record of an engine, or None if there is none.

    Raises:
        FileError: the record cannot be read, or is not as it was written.
        ExportError: the record is of another kind or of a newer version.
    """
    path = record_path(engine_path)
    if not os.path.lexists(path):
        return None
    value = read_json(path)
    try:
        check_seal(path, required=value["schema"] >= _SCHEMA, what=f"'{path}'")
        return EngineInfo.from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"'{path}' must be the record of an engine, but reading it met {type(error).__name__}: {error}; build the engine again"
        ) from error
