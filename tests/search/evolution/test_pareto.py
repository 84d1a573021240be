from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ofa.arrays import Floats
from search.evolution.pareto import non_dominated


def by_definition(costs_NK: Floats) -> list[bool]:
    def beats(j: int, i: int) -> bool:
        equal = bool((costs_NK[j] == costs_NK[i]).all())
        return bool((costs_NK[j] <= costs_NK[i]).all()) and (not equal or j < i)

    return [not any(beats(j, i) for j in range(len(costs_NK))) for i in range(len(costs_NK))]


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.integers(0, 25).flatmap(lambda n: arrays(np.float64, (n, k), elements=st.integers(0, 4).map(float)))
    )
)
def test_it_is_what_the_definition_says(costs_NK: Floats) -> None:
    assert non_dominated(costs_NK).tolist() == by_definition(costs_NK)


@pytest.mark.parametrize("costs", [2, 3, 6])
def test_many_rows_are_compared_across_blocks(costs: int) -> None:
    rng = np.random.default_rng(costs)
    costs_NK = rng.random((1500, costs))
    kept = non_dominated(costs_NK)
    front = costs_NK[kept]
    covered = [bool((front <= row).all(axis=1).any()) for row in costs_NK]
    assert all(covered)
    assert non_dominated(front).all()


def test_of_equal_rows_the_first_stays() -> None:
    assert non_dominated(np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])).tolist() == [True, True, False, False]
