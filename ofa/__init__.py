"""Train one elastic supernet, measure any device once, and get the best network for any latency budget.

The names below are loaded when they are first used, so that importing ``ofa`` stays cheap: most of them need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa.arch import Arch
    from ofa.errors import OfaError
    from ofa.families import Space, get_space, lower, space_names

    __version__: str

__all__ = ["Arch", "OfaError", "Space", "__version__", "get_space", "lower", "space_names"]

_HOMES = {
    "Arch": "ofa.arch",
    "OfaError": "ofa.errors",
    "Space": "ofa.families",  # where families are, so that a file of theirs can be read
    "get_space": "ofa.families",
    "lower": "ofa.families",
    "space_names": "ofa.families",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'ofa' has no attribute '{name}'")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ofa-nas")
    except PackageNotFoundError:  # a source tree that is on the import path but not installed
        return "0+uninstalled"
