"""The version of the project."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("ofa-nas")
except PackageNotFoundError:  # a source tree on the module path that is not installed
    __version__ = "0+uninstalled"
