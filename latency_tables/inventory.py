"""Which blocks a space needs: all that any of its networks is made of, each once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock
from ofa.families import lower
from ofa.space import Space

__all__ = ["blocks_of_space"]

_RANDOM_BASES = 3
_SEED = 0  # of the bases, which are fixed so that a space's blocks are always found the same way

Row = tuple[int, ...]


def blocks_of_space(space: Space, resolutions: Iterable[int] | None = None) -> tuple[PlacedBlock, ...]:
    """Every block at every input size that a network of the space can have, without going through all networks.

    A block depends on a few genes only: its own, and where widths are elastic its neighbours'. Which ones is found by changing one gene
    after the other in several networks and looking at what changes; then all combinations of just these are lowered.

    Args:
        space: any space.
        resolutions: in pixels; by default all of the space's.

    Returns:
        Unique (block, input size) pairs, each with the first place it was found at.

    Raises:
        SpaceError: a resolution that the space does not have.
    """
    wanted = space.resolutions if resolutions is None else resolutions
    found: dict[tuple[Block, int], PlacedBlock] = {}
    for resolution in wanted:
        for placed in _blocks_at(space.restrict(resolution=[resolution])):
            found.setdefault((placed.block, placed.input_size), placed)
    return tuple(found.values())


def _blocks_at(space: Space) -> Iterator[PlacedBlock]:
    """All blocks of a space of one resolution, some repeatedly."""
    base = space.encode(space.largest())
    for place, columns in _influences(space, _bases(space)).items():
        for values in itertools.product(*(range(len(space.columns[column].values)) for column in columns)):
            placed = _by_place(space, _changed(base, columns, values)).get(place)
            if placed is not None:
                yield placed


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
