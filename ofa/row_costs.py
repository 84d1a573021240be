"""Device-independent costs of encoded archs, a million at once.

Shape suffixes: N archs, C columns of an encoded arch, U blocks of the space.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ofa.arrays import Floats, Rows
from ofa.costs import COSTS, FLOAT32, Cost, NumberFormat
from ofa.inventory import inventory_of
from ofa.lookup import AdditiveTable
from ofa.space import Space

__all__ = ["Costs", "costs_of"]


class Costs:
    """The costs of a space's networks, each compiled to look-ups on first use. Create it with ``costs_of``, which caches it."""

    def __init__(self, space: Space, stored: NumberFormat) -> None:
        self._space, self._stored = space, stored
        self._tables: dict[Cost, AdditiveTable] = {}

    def __call__(self, rows_NC: Rows, names: Iterable[str] | None = None) -> dict[str, Floats]:
        """Compute costs of encoded archs.

        Args:
            rows_NC: encoded archs.
            names: of costs; all by default.

        Returns:
            Costs by name, each [N]; integers, exact below 2^53. For float32 files they equal ``ofa.costs.costs``.

        Raises:
            SearchError: there is no cost with such a name.
        """
        return {name: self._table(COSTS.get(name))(rows_NC) for name in (COSTS.names() if names is None else names)}

    def _table(self, cost: Cost) -> AdditiveTable:
        if cost not in self._tables:
            inventory = inventory_of(self._space)
            values_U = np.array([cost.in_file([placed], self._stored) for placed in inventory.blocks], dtype=np.float64)
            combine = {"sum": np.add, "max": np.maximum}[cost.combine]
            self._tables[cost] = AdditiveTable(self._space, inventory, values_U, combine=combine)
        return self._tables[cost]


@lru_cache(maxsize=16)
def costs_of(space: Space, stored: NumberFormat = FLOAT32) -> Costs:
    """The costs of a space, compiled once and cached.

    Args:
        space: of the networks.
        stored: number format of their files.
    """
    return Costs(space, stored)
