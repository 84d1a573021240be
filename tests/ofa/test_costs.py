from __future__ import annotations

import numpy as np
import pytest

from ofa.costs import COSTS, costs
from ofa.families import get_space, lower
from ofa.row_costs import costs_of
from tests.ofa.strategies import TINY_SPACES


@pytest.mark.parametrize("name", TINY_SPACES)
def test_costs_of_rows_are_those_of_the_lowered_networks(name: str) -> None:
    space = get_space(name)
    rows_NC = space.sample_rows(50, np.random.default_rng(0))
    found = costs_of(space)(rows_NC)
    assert tuple(found) == COSTS.names()
    for i, row in enumerate(rows_NC.tolist()):
        assert {key: int(values_N[i]) for key, values_N in found.items()} == costs(lower(space, space.decode(row)))
