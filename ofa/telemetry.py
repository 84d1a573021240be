"""Libraries that report to their makers how they are used, imported so that they do not."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

__all__ = ["import_without_telemetry"]

_VARIABLES = {"onnxruntime": "ORT_DISABLE_TELEMETRY"}
"""What turns it off before the library is loaded; it holds for the processes that this one starts as well, unless the user has set it."""
_COLLECTORS = dict.fromkeys(("openvino", "nncf"), "openvino_telemetry")
"""Packages that report, and that their library does without."""


def import_without_telemetry(name: str) -> Any:
    """Import a library; importing it raises what it raises.

    ONNX Runtime would otherwise keep a database of its uses in the user's home, to be sent, and importing OpenVINO would start a process
    that reports the import.
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
