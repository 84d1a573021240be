from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_tables import blocks_of_space
from ofa.errors import SpaceError
from ofa.families import get_space, lower, space_names
from ofa.inventory import NOTHING, inventory_of
from ofa.space import Space
from tests.ofa.strategies import OTHER_INPUTS, archs, space_of


@pytest.fixture(scope="module", params=[*space_names(), *OTHER_INPUTS])
def space(request: pytest.FixtureRequest) -> Space:
    """Every one, with its smallest and its largest resolution; of the module, so that tests of one space follow each other."""
    whole = space_of(request.param)
    return whole.restrict(resolution=(whole.resolutions[0], whole.resolutions[-1]))


def test_every_block_of_random_networks_is_found(space: Space) -> None:
    found = {(placed.block, placed.input) for placed in blocks_of_space(space)}
    rng = np.random.default_rng(0)
    for arch in [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(300))]:
        assert {(placed.block, placed.input) for placed in lower(space, arch)} <= found


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"])
def test_nothing_is_found_that_no_network_has(name: str) -> None:
    space = space_of(name)
    rng = np.random.default_rng(0)
    used = {(placed.block, placed.input) for _ in range(6000) for placed in lower(space, space.sample(rng))}
    assert {(placed.block, placed.input) for placed in blocks_of_space(space)} == used


@given(data=st.data())
@settings(max_examples=20)
def test_every_place_holds_the_block_that_lowering_puts_there(space: Space, data: st.DataObject) -> None:
    arch = data.draw(archs(space))
    row, inventory = space.encode(arch), inventory_of(space)
    numbers = {place.name: int(place.blocks[tuple(row[column] for column in place.columns)]) for place in inventory.places}
    found = {place: inventory.blocks[number] for place, number in numbers.items() if number != NOTHING}
    expected = {placed.name: (placed.block, placed.input) for placed in lower(space, arch)}
    assert {place: (placed.block, placed.input) for place, placed in found.items()} == expected


def test_each_is_found_once(space: Space) -> None:
    blocks = [(placed.block, placed.input) for placed in blocks_of_space(space)]
    assert len(set(blocks)) == len(blocks)


def test_blocks_are_those_of_the_resolutions_that_are_asked_for() -> None:
    space = get_space("ofa-mbv3-tiny")
    assert blocks_of_space(space, space.resolutions[:1]) == blocks_of_space(space.restrict(resolution=space.resolutions[:1]))


def test_a_resolution_of_no_network_is_refused() -> None:
    with pytest.raises(SpaceError, match="resolution"):
        blocks_of_space(get_space("ofa-mbv3-tiny"), [17])
