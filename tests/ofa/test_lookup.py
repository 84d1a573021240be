from __future__ import annotations

import numpy as np
import pytest

from ofa.costs import COSTS
from ofa.families import lower
from ofa.inventory import inventory_of
from ofa.lookup import AdditiveTable
from tests.ofa.strategies import OTHER_INPUTS, TINY_SPACES, space_of


@pytest.mark.parametrize("name", [*TINY_SPACES, *OTHER_INPUTS])
def test_costs_of_blocks_become_those_of_networks(name: str) -> None:
    space, rng = space_of(name), np.random.default_rng(0)
    inventory = inventory_of(space)
    rows = np.stack([rng.integers(len(gene.values), size=100) for gene in space.columns], axis=1)
    networks = [lower(space, space.decode(row.tolist())) for row in rows]
    known = {cost: COSTS.get(cost).of for cost in COSTS.names()}
    of_blocks = {cost: np.array([count([placed]) for placed in inventory.blocks], dtype=np.float64) for cost, count in known.items()}
    of_networks = {cost: [count(network) for network in networks] for cost, count in known.items()}
    peak = "peak_activation_bytes"
    assert AdditiveTable(space, inventory, of_blocks[peak], combine=np.maximum)(rows).tolist() == of_networks[peak]
    sums = [cost for cost in known if cost != peak]
    together = AdditiveTable(space, inventory, np.stack([of_blocks[cost] for cost in sums]))(rows)
    assert together.tolist() == [of_networks[cost] for cost in sums]
