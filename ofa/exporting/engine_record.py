"""The record beside an engine: a JSON file about its source, its target GPUs and its layers."""

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
        name: name in the ONNX file.
        shape: sizes; -1 where the engine leaves a size open.
        dtype: TensorRT's name of the data type, such as ``FLOAT``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """Facts about an engine.

    Attributes:
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: version of the package that built it.
        compute_capabilities: CUDA compute capabilities that it was built for; empty if that was left to the package.
        precision: ``fp32`` or ``fp16``; None if it is unknown.
        inputs, outputs: its tensors.
        network_layers: number of layers of the parsed network, before fusion.
        network_precisions: number of convolutions and matrix products by the type that they compute in, such as ``INT8``.
        engine_layers: number of layers of the loaded engine; None if there was no GPU to load it.
        engine_precisions: number of the engine's layers by the type that they read; None also if the engine does not describe its layers.
        engine_bytes: size of the engine's file in bytes.
        engine_sha256, onnx_sha256: digests of the engine and of the ONNX file that it was built from.
        created: time of the build, UTC, ISO 8601.
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
        """Read what ``to_json`` returned; raises ``ValueError``, ``TypeError`` or ``KeyError`` for anything else."""
        fields = dict(value)
        if fields.pop("schema") not in range(1, _SCHEMA + 1):
            raise ValueError(f"its schema is {value['schema']}, this version of ofa reads up to {_SCHEMA}")
        for side in ("inputs", "outputs"):
            fields[side] = tuple(EngineTensor(each["name"], tuple(each["shape"]), each["dtype"]) for each in fields[side])
        fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
        return cls(**fields)


def record_path(engine_path: str | os.PathLike[str]) -> Path:
    """Path of the record of an engine: ``network.engine.json`` for ``network.engine``."""
    path = Path(engine_path)
    return path.with_name(path.name + ".json")


def write_record(info: EngineInfo, engine_path: str | os.PathLike[str]) -> None:
    """Write the record of an engine atomically."""
    write_json(info.to_json(), record_path(engine_path))


def read_record(engine_path: str | os.PathLike[str]) -> EngineInfo | None:
    """The record of an engine, or None if there is none.

    Raises:
        FileError: the record cannot be read, or does not match its checksum.
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
