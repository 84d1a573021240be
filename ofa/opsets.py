"""Versions of ONNX files: which we write, and which runtime release reads them. Needs no ``onnx`` package, so devices can import it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IR_VERSION", "NEWEST_OPSET", "OLDEST_OPSET", "OPSET", "Release", "ir_version_for", "least_release"]


@dataclass(frozen=True, kw_only=True)
class Release:
    """Versions that belong to one opset (version of ONNX's operators).

    Attributes:
        ir_version: oldest IR version (version of the file format) that allows the opset.
        onnx: release of ONNX that introduced it.
        onnxruntime: first release of ONNX Runtime that reads it.
    """

    ir_version: int
    onnx: str
    onnxruntime: str


# From onnx.helper.VERSION_TABLE and ONNX Runtime's compatibility page; opsets 14 to 21 were tried with ONNX Runtime's releases since 1.15.
_RELEASES = {
    11: Release(ir_version=6, onnx="1.6", onnxruntime="1.2"),
    12: Release(ir_version=7, onnx="1.7", onnxruntime="1.5"),
    13: Release(ir_version=7, onnx="1.8", onnxruntime="1.6"),
    14: Release(ir_version=7, onnx="1.9", onnxruntime="1.8"),
    15: Release(ir_version=8, onnx="1.10", onnxruntime="1.10"),
    16: Release(ir_version=8, onnx="1.11", onnxruntime="1.11"),
    17: Release(ir_version=8, onnx="1.12", onnxruntime="1.12"),
    18: Release(ir_version=8, onnx="1.13", onnxruntime="1.14"),
    19: Release(ir_version=9, onnx="1.14", onnxruntime="1.15"),
    20: Release(ir_version=9, onnx="1.15", onnxruntime="1.17"),
    21: Release(ir_version=10, onnx="1.16", onnxruntime="1.18"),
}

OPSET = 14
"""Default opset of exported files: the first with HardSwish."""

IR_VERSION = _RELEASES[OPSET].ir_version
"""IR version of the default opset."""

OLDEST_OPSET, NEWEST_OPSET = min(_RELEASES), max(_RELEASES)
"""Range of supported opsets; before the oldest, operators have other signatures than the export writes."""


def ir_version_for(opset: int) -> int:
    """The oldest IR version that allows ``opset``, which must be between ``OLDEST_OPSET`` and ``NEWEST_OPSET``."""
    return _RELEASES[opset].ir_version


def least_release(opset: int, ir_version: int) -> Release | None:
    """The first release that reads files with these versions.

    Args:
        opset: of the file.
        ir_version: of the file.

    Returns:
        The release; None if the versions are newer than all known releases.
    """
    return next((each for known, each in _RELEASES.items() if known >= opset and each.ir_version >= ir_version), None)
