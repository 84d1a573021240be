"""What networks cost by construction, of a million encoded archs at once: MACs, parameters, bytes of weights and of activations.

Shape suffixes: N archs, C columns of an encoded arch, U blocks of the space.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ofa.arrays import Floats, Rows
from ofa.cost import COSTS
from ofa.inventory import inventory_of
from ofa.lookup import AdditiveTable
from ofa.space import Space

__all__ = ["EXACT_COSTS", "Costs", "costs_of"]

_COMBINED = {"macs": np.add, "params": np.add, "weight_bytes": np.add, "peak_activation_bytes": np.maximum}
"""How the values of blocks make that of a network."""

EXACT_COSTS = tuple(COSTS)
"""The names of the costs that follow from the blocks alone, as ``ofa.cost`` has them."""


class Costs:
    """The costs of the networks of a space, each compiled to look-ups when it is first asked for; made by ``costs_of``, which keeps it."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._tables: dict[str, AdditiveTable] = {}

    def __call__(self, rows_NC: Rows, names: Iterable[str] = EXACT_COSTS) -> dict[str, Floats]:
        """Costs by name, [N] each; whole numbers, exact below 2^53, and equal to ``ofa.cost.costs`` of the lowered networks."""
        return {name: self._table(name)(rows_NC) for name in names}

    def of_blocks(self, name: str) -> Floats:
        """The cost of each block of the space's inventory; [U]."""
        return np.array([COSTS[name]([placed]) for placed in inventory_of(self._space).blocks], dtype=np.float64)

    def _table(self, name: str) -> AdditiveTable:
        if name not in self._tables:
            inventory = inventory_of(self._space)
            self._tables[name] = AdditiveTable(self._space, inventory, self.of_blocks(name), combine=_COMBINED[name])
        return self._tables[name]


@lru_cache(maxsize=16)
def costs_of(space: Space) -> Costs:
    """The costs of a space, compiled once."""
    return Costs(space)
