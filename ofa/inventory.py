"""The inventory of a space: all distinct blocks of all its networks, and which genes decide which block stands where."""

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
_SEED = 0  # of the random base archs; fixed, so that the inventory of a space is deterministic

NOTHING = -1
"""Block number of a place that a shallow network lacks."""

Row = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """A position in the networks of a space.

    Attributes:
        name: such as ``stages.1.0``.
        columns: the columns of an encoded arch that decide the block there, ascending.
        blocks: block number for each combination of their values, with one axis per column; ``NOTHING`` if there is no block.
    """

    name: str
    columns: tuple[int, ...]
    blocks: Ids


@dataclass(frozen=True, eq=False)
class Inventory:
    """All blocks of a space, and their places.

    Attributes:
        blocks: unique by block, input shape and tensors alive beside it; each with the first place where it was found.
        places: every place that some network has.
    """

    blocks: tuple[PlacedBlock, ...]
    places: tuple[Place, ...]


def blocks_of_space(space: Space, resolutions: Iterable[Resolution] | None = None) -> tuple[PlacedBlock, ...]:
    """All distinct pairs of block and input shape in the networks of a space.

    Args:
        space: any space.
        resolutions: of input images in pixels; all resolutions of the space by default.

    Raises:
        SpaceError: a resolution that the space does not have.
    """
    found: dict[tuple[Block, Shape], PlacedBlock] = {}
    for placed in inventory_of(space if resolutions is None else space.restrict(resolution=resolutions)).blocks:
        found.setdefault((placed.block, placed.input), placed)
    return tuple(found.values())


@lru_cache(maxsize=16)
def inventory_of(space: Space) -> Inventory:
    """The inventory of a space, without enumerating its networks.

    A block depends on few genes: its own, the resolution and, with elastic widths, the genes of its neighbours. To find them, each
    gene is changed in several base archs, and the places whose block changes are recorded. Then all combinations of only these genes
    are lowered.
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
    """For each place, the columns of the encoding that change its block, or whether it has one."""
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
