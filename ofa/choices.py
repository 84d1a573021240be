"""What a space is made of: named choices, and stages of blocks that choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa.errors import SpaceError

__all__ = ["ROW_DTYPE", "Gene", "Number", "Stage", "check_ascending"]

Number = int | float

ROW_DTYPE = np.int8
"""Of encoded archs by the million; no gene has more values than it holds."""

_MOST_VALUES = int(np.iinfo(ROW_DTYPE).max) + 1


@dataclass(frozen=True)
class Gene:
    """A named choice among ``values``, in ascending order."""

    name: str
    values: tuple[Number, ...]

    def __post_init__(self) -> None:
        check_ascending(self.name, self.values, sorted(set(self.values)))


def check_ascending(name: str, values: Sequence[object], ascending: Sequence[object]) -> None:
    """Raise SpaceError unless ``values`` are ``ascending``, at least one, and not too many for encoded archs."""
    if not values or list(values) != list(ascending):
        listed = ", ".join(map(str, values))
        raise SpaceError(f"the values of a gene must ascend without repeats, but {name} has [{listed}]; sort them and drop repeats")
    if len(values) > _MOST_VALUES:
        raise SpaceError(f"a gene must have at most {_MOST_VALUES} values, but {name} has {len(values)}; leave some out")


@dataclass(frozen=True)
class Stage:
    """A run of blocks: how many there may be, and the genes that each block chooses by itself."""

    depths: tuple[int, ...]
    genes: tuple[Gene, ...]

    def __post_init__(self) -> None:
        Gene("depth", self.depths)
