"""What every cost must do; a class of tests that derives from this one gives it."""

from __future__ import annotations

import numpy as np
import pytest

from ofa.costs import COSTS, Cost, costs
from ofa.families import get_space, lower
from ofa.row_costs import costs_of
from tests.ofa.strategies import TINY_SPACES

__all__ = ["CostContract"]


class CostContract:
    @pytest.fixture
    def cost(self) -> Cost:
        raise NotImplementedError

    def test_it_is_registered_under_its_name_and_has_an_option_of_its_own(self, cost: Cost) -> None:
        assert COSTS.get(cost.name) is cost
        options = [COSTS.get(name).option for name in COSTS.names()]
        assert options.count(cost.option) == 1
        assert cost.option not in ("latency", "energy", "accuracy")
        assert cost.option.isidentifier()

    @pytest.mark.parametrize("name", TINY_SPACES)
    def test_arrays_count_what_the_blocks_of_a_network_do(self, cost: Cost, name: str) -> None:
        space = get_space(name)
        rows_NC = space.sample_rows(50, np.random.default_rng(0))
        found = costs_of(space)(rows_NC)[cost.name]
        assert found.tolist() == [costs(lower(space, space.decode(row)))[cost.name] for row in rows_NC.tolist()]
        assert (found >= 0).all()
