"""Which blocks a space needs: all that any of its networks is made of, each once, and which choices put which block where."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock, Shape
from ofa.families import lower
from ofa.resolution import Resolution
from ofa.space import Space

__all__ = ["NOTHING", "Inventory", "Place", "blocks_of_space", "inventory_of"]

Ids = np.ndarray[tuple[int, ...], np.dtype[np.int32]]

_RANDOM_BASES = 3
_SEED = 0  # of the bases, which are fixed so that a space's blocks are always found the same way

NOTHING = -1
"""The number of no block: what stands at a place that a shallow network does not have."""

Row = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """A place in the networks of a space.

    Attributes:
        name: such as ``stages.1.0``.
        columns: the columns of an encoded arch that decide what stands there, ascending.
        blocks: the number of the block for each combination of their values, one axis a column; ``NOTHING`` where there is none.
    """

    name: str
    columns: tuple[int, ...]
    blocks: Ids


@dataclass(frozen=True, eq=False)
class Inventory:
    """All blocks of a space, and where they stand.

    Attributes:
        blocks: unique by block, input shape and what is alive beside it, each with the first place it was found at.
        places: every place that some network has.
    """

    blocks: tuple[PlacedBlock, ...]
    places: tuple[Place, ...]


def blocks_of_space(space: Space, resolutions: Iterable[Resolution] | None = None) -> tuple[PlacedBlock, ...]:
    """Every block at every input shape that a network of the space can have, each once.

    Args:
        space: any space.
        resolutions: in pixels; by default all of the space's.

    Raises:
        SpaceError: a resolution that the space does not have.
    """
    found: dict[tuple[Block, Shape], PlacedBlock] = {}
    for placed in inventory_of(space if resolutions is None else space.restrict(resolution=resolutions)).blocks:
        found.setdefault((placed.block, placed.input), placed)
    return tuple(found.values())


@lru_cache(maxsize=16)
def inventory_of(space: Space) -> Inventory:
    """The inventory of a space, without going through all networks.

    A block depends on a few genes only: its own, the resolution, and where widths are elastic its neighbours'. Which ones is found by
    changing one gene after the other in several networks and looking at what changes; then all combinations of just these are lowered.
    """
    base = space.encode(space.largest())
    numbers: dict[tuple[object, ...], int] = {}
    blocks: list[PlacedBlock] = []
    places = []
    for name, columns in _influences(space, _bases(space)).items():
        shape = tuple(len(space.columns[column].values) for column in columns)
        ids = np.full(shape, NOTHING, dtype=np.int32)
        for values in itertools.product(*map(range, shape)):
            placed = _by_place(space, _changed(base, columns, values)).get(name)
            if placed is not None:
                key = (placed.block, placed.input, len(placed.inputs), placed.beside, placed.kept)
                number = numbers.setdefault(key, len(blocks))
                if number == len(blocks):
                    blocks.append(placed)
                ids[values] = number
        places.append(Place(name, tuple(columns), ids))
    return Inventory(tuple(blocks), tuple(places))


def _bases(space: Space) -> list[Arch]:
    rng = np.random.default_rng(_SEED)
    return [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(_RANDOM_BASES))]


def _influences(space: Space, bases: Sequence[Arch]) -> dict[str, list[int]]:
    """For every place in a network, the columns of the encoding that change what stands there, or whether anything does."""
    influences: dict[str, set[int]] = {}
    for base in bases:
        row = space.encode(base)
        before = _by_place(space, row)
        for place in before:
            influences.setdefault(place, set())
        for column, gene in enumerate(space.columns):
            for value in set(range(len(gene.values))) - {row[column]}:
                after = _by_place(space, _changed(row, [column], [value]))
                for place in before.keys() | after.keys():
                    if before.get(place) != after.get(place):
                        influences.setdefault(place, set()).add(column)
    return {place: sorted(columns) for place, columns in influences.items()}


def _by_place(space: Space, row: Row) -> dict[str, PlacedBlock]:
    return {placed.name: placed for placed in lower(space, space.decode(row))}


def _changed(row: Row, columns: Sequence[int], values: Sequence[int]) -> Row:
    changed = list(row)
    for column, value in zip(columns, values, strict=True):
        changed[column] = value
    return tuple(changed)
