"""Rows of a space over precisions are those of the space with one column more, whatever the family."""

from __future__ import annotations

import numpy as np
import pytest

from ofa.errors import ExportError, SearchError, SpaceError
from ofa.families import get_space, lower, whole_of
from ofa.row_costs import costs_of
from ofa.space import Gene
from search.precisions.costs import costs_in_files
from search.precisions.space import archs_of, over_precisions, precisions_of, without_precisions
from search.problem import Problem
from tests.ofa.strategies import TINY_SPACES, space_of
from tests.search.fakes import SMALL, SPACE
from tests.search.precisions.twins import twin_problem


@pytest.mark.parametrize("name", TINY_SPACES)
def test_archs_of_random_rows_are_points_of_the_space_itself(name: str) -> None:
    space = space_of(name)
    over = over_precisions(space, ("fp32", "int8", "fp16"))
    assert (over.size, over.precisions, over.columns[over.column].values) == (3 * space.size, ("int8", "fp16", "fp32"), (8, 16, 32))
    rows_NC = over.sample_rows(50, np.random.default_rng(0))
    assert [over.encode(over.decode(row)) for row in rows_NC.tolist()] == list(map(tuple, rows_NC.tolist()))
    assert np.array_equal(over.canonical(rows_NC), rows_NC)
    inner_NC = over.without(rows_NC)
    archs = archs_of(over, rows_NC)
    assert archs == [space.decode(row) for row in inner_NC.tolist()]
    assert np.array_equal(space.encode_all(archs), inner_NC)
    assert precisions_of(over, rows_NC) == [over.precisions[value] for value in rows_NC[:, over.column].tolist()]
    assert (precisions_of(space, inner_NC), without_precisions(over), without_precisions(space)) == (None, space, space)
    assert lower(over, over.decode(rows_NC[0].tolist())) == lower(space, archs[0])


def test_a_change_of_precision_is_a_neighbour_and_parts_translate() -> None:
    over = over_precisions(SMALL, ("fp32", "int8"))
    rows_NC = over.sample_rows(20, np.random.default_rng(0))
    other_1C = over.rows_at(rows_NC[:1], "int8" if precisions_of(over, rows_NC[:1]) == ["fp32"] else "fp32")
    assert other_1C[0].tolist() in over.neighbour_rows(rows_NC[:1]).tolist()
    for part in over.parts:
        (name,) = part.precisions
        own_NC = rows_NC[over.in_precision(rows_NC)[name]]
        assert np.array_equal(part.rows_in(over, over.rows_in(part, own_NC)), own_NC)
        assert part.is_part_of(over)
        assert part.of == SMALL
    narrow = over.restrict(resolution=SMALL.resolutions[:1], kernel=[3], precision=[8])
    assert narrow.of == SMALL.restrict(resolution=SMALL.resolutions[:1], kernel=[3])
    assert narrow.without(narrow.sample_rows(5, np.random.default_rng(0))).shape[1] == len(narrow.of.columns)
    with pytest.raises(SpaceError, match=r"precision must keep some of \[8, 32\] bits"):
        over.restrict(precision=[4])


@pytest.mark.parametrize(
    ("space", "names", "error", "words"),
    [
        (SMALL, (), SearchError, "must differ in the bits of a weight, but they are none"),
        (SMALL, ("int8", "int8"), SearchError, "must differ in the bits of a weight"),
        (over_precisions(SMALL, ("int8",)), ("fp32",), SearchError, "must have no gene 'precision'"),
        (SMALL, ("int4",), ExportError, "int4"),
    ],
)
def test_precisions_that_cannot_be_are_refused(space: object, names: tuple[str, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        over_precisions(space, names)  # type: ignore[arg-type]


def test_bytes_of_weights_are_those_of_each_networks_file() -> None:
    over = over_precisions(SPACE, ("fp32", "int8"))
    rows_NC = over.sample_rows(40, np.random.default_rng(0))
    found = costs_in_files(over, rows_NC, ("macs", "weight_bytes"), ())
    whole = costs_of(SPACE)(over.without(rows_NC), ("macs", "weight_bytes"))
    is_float_N = np.array(precisions_of(over, rows_NC)) == "fp32"
    assert found["macs"].tolist() == whole["macs"].tolist()
    assert np.array_equal(found["weight_bytes"][is_float_N], whole["weight_bytes"][is_float_N])
    assert (found["weight_bytes"][~is_float_N] < 0.5 * whole["weight_bytes"][~is_float_N]).all()
    plain_NC = over.without(rows_NC)
    several = (["int8"], ["int8", "fp32"], [])
    int8, both, none = (costs_in_files(SPACE, plain_NC, ("weight_bytes",), each)["weight_bytes"] for each in several)
    assert np.array_equal(both, none)
    assert np.array_equal(none, whole["weight_bytes"])
    assert np.array_equal(int8[~is_float_N], found["weight_bytes"][~is_float_N])


def test_a_problem_of_them_says_which_space_its_networks_are_of() -> None:
    problem: Problem = twin_problem()
    assert problem.of_whole == whole_of(SMALL) == SPACE
    gene = Gene("precision", (8, 32))
    assert problem.space.network[-1] == gene
    assert get_space(problem.space.name) == SPACE
