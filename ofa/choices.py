"""The elements of a space: genes (named choices) and stages (sequences of blocks, each with genes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa.errors import SpaceError

__all__ = ["ROW_DTYPE", "Gene", "Number", "Stage", "check_ascending"]

Number = int | float

ROW_DTYPE = np.int8
"""Data type of encoded archs. It is small because searches encode millions; no gene may have more values than it can index."""

_MOST_VALUES = int(np.iinfo(ROW_DTYPE).max) + 1


@dataclass(frozen=True)
class Gene:
    """A named choice among ``values``, in ascending order.

    Attributes:
        name: such as ``kernel``.
        values: 1 to 128 numbers, ascending, without repeats.

    Raises:
        SpaceError: the values do not ascend, repeat, are missing or too many.
    """

    name: str
    values: tuple[Number, ...]

    def __post_init__(self) -> None:
        check_ascending(self.name, self.values, sorted(set(self.values)))


def check_ascending(name: str, values: Sequence[object], ascending: Sequence[object]) -> None:
    """Check the values of a gene.

    Args:
        name: of the gene, for the message.
        values: as they were given.
        ascending: the same values sorted and without repeats.

    Raises:
        SpaceError: ``values`` differ from ``ascending``, are empty, or are too many for encoded archs.
    """
    if not values or list(values) != list(ascending):
        listed = ", ".join(map(str, values))
        raise SpaceError(f"the values of a gene must ascend without repeats, but {name} has [{listed}]; sort them and drop repeats")
    if len(values) > _MOST_VALUES:
        raise SpaceError(f"a gene must have at most {_MOST_VALUES} values, but {name} has {len(values)}; leave some out")


@dataclass(frozen=True)
class Stage:
    """A sequence of blocks.

    Attributes:
        depths: possible numbers of blocks, ascending.
        genes: of each block, chosen independently.

    Raises:
        SpaceError: the depths are not as the values of a gene must be.
    """

    depths: tuple[int, ...]
    genes: tuple[Gene, ...]

    def __post_init__(self) -> None:
        Gene("depth", self.depths)
