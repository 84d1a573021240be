"""The spaces that a table is for: what its metadata carries of them, and whether a space is one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ofa.errors import TableError
from ofa.families import space_argument, stored_space, whole_of
from ofa.resolution import Resolution, ascending, resolutions_to_json
from ofa.space import Space

if TYPE_CHECKING:
    from latency_tables.table import LatencyTable

__all__ = ["carried", "check_same", "require_space", "space_of"]

_KEY = "definitions"


def carried(space: Space, resolutions: Sequence[Resolution], earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What metadata say of a space: ``spaces`` (resolutions in pixels by name) and ``definitions`` (``Space.to_json`` by name).

    Args:
        space: a space.
        resolutions: in pixels, that the table holds.
        earlier: metadata of a table that is continued, whose spaces are kept.

    Raises:
        TableError: the earlier table is of another space of this name.
    """
    before = earlier or {}
    if before:
        check_same(before, space, "the table")
    spaces, known = before.get("spaces", {}), before.get(_KEY, {})
    sizes = resolutions_to_json(ascending([*spaces.get(space.name, []), *resolutions]))
    return {"spaces": {**spaces, space.name: sizes}, _KEY: {**known, space.name: whole_of(space).to_json()}}


def space_of(metadata: Mapping[str, Any], name: str, num_classes: int | None = None) -> Space:
    """The space of that name as a table carries it, or in tables of earlier versions the one of ofa; nothing is imported.

    Raises:
        SpaceError: it is unknown here, or of a class that has not been imported.
    """
    return stored_space(metadata.get(_KEY, {}).get(name), name, num_classes, "a latency table")


def require_space(table: LatencyTable, space: Space) -> None:
    """Check that a table was built for a space, and not for another of the same name.

    Raises:
        TableError: it was not.
    """
    spaces = table.metadata["spaces"]
    if space.name not in spaces:
        raise TableError(
            f"a table must be of the space it is used for, but this one is of {', '.join(spaces)} and not of {space.name}; "
            f"build one with: ofa table build --space {space_argument(space)} --device {table.device_name}"
        )
    check_same(table.metadata, space, f"table '{table.source}'" if table.source else "the table")


def check_same(metadata: Mapping[str, Any], space: Space, called: str) -> None:
    """Raise TableError if what ``called`` carries under the name of a space is another space; the numbers of classes may differ."""
    value = metadata.get(_KEY, {}).get(space.name)
    if value is None:
        return
    known = value.get("family") == space.to_json()["family"]
    if not known or not space.is_part_of(Space.from_json(value, called), any_classes=True):
        raise TableError(
            f"a table must be of the space it is used for, but {called} is of another space that is called {space.name} too; "
            f"build one with: ofa table build --space {space_argument(space)}, and give spaces names of their own"
        )
