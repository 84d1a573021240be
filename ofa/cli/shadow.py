"""Checks that ``search``, ``devices`` and ``latency_tables``, which are common names, are imported from beside this ``ofa``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import ofa
from ofa.errors import OfaError

__all__ = ["SIBLINGS", "check_siblings"]

SIBLINGS = ("devices", "latency_tables", "search")


def check_siblings() -> None:
    """Find the sibling packages without importing them.

    Raises:
        OfaError: a foreign file or folder comes first on the import path, or a package is missing.
    """
    home = Path(ofa.__file__).resolve().parents[1]
    for name in SIBLINGS:
        spec = find_spec(name)
        if spec is None:
            raise OfaError(f"the package '{name}' must be beside ofa in {home}, but is missing there; install ofa-nas again")
        found = _location(spec.origin, spec.submodule_search_locations)
        if found != home / name:
            raise OfaError(
                f"'{name}' must be the package in {home}, but {found} comes first on the import path and shadows it; "
                "rename that file or folder, start ofa from another folder, or take its folder out of PYTHONPATH"
            )


def _location(origin: str | None, folders: list[str] | None) -> Path:
    """The folder of a package, the file of a module."""
    if folders:
        return Path(next(iter(folders))).resolve()
    return Path(origin or "a built-in module").resolve()
