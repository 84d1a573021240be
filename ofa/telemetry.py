"""Import of libraries with their telemetry (usage reports to their makers) turned off."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

__all__ = ["import_without_telemetry"]

_VARIABLES = {"onnxruntime": "ORT_DISABLE_TELEMETRY"}
"""Environment variables that disable telemetry; set before the import, inherited by child processes, and left alone if already set."""
_COLLECTORS = dict.fromkeys(("openvino", "nncf"), "openvino_telemetry")
"""Telemetry packages by library; the library also works without the package."""


def import_without_telemetry(name: str) -> Any:
    """Import a library without telemetry; exceptions of the import pass through.

    Otherwise ONNX Runtime would keep a database of its uses in the user's home, to be sent, and importing OpenVINO would start a process
    that reports the import.

    Args:
        name: of the module.
    """
    package = name.partition(".")[0]
    if package in _VARIABLES:
        os.environ.setdefault(_VARIABLES[package], "1")
    collector = _COLLECTORS.get(package, package)
    hidden = collector != package and collector not in sys.modules
    if hidden:
        sys.modules[collector] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    finally:
        if hidden:
            del sys.modules[collector]
