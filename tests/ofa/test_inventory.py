from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_tables import blocks_of_space
from ofa.errors import SpaceError
from ofa.families import get_space, lower, space_names
from ofa.inventory import NOTHING, inventory_of
from tests.ofa.strategies import OTHER_INPUTS, archs, space_of


@pytest.mark.parametrize("name", [*space_names(), *OTHER_INPUTS])
def test_every_block_of_random_networks_is_found(name: str) -> None:
    space = space_of(name)
    resolutions = (space.resolutions[0], space.resolutions[-1])
    allowed = space.restrict(resolution=resolutions)
    found = {(placed.block, placed.input) for placed in blocks_of_space(space, resolutions)}
    rng = np.random.default_rng(0)
    for arch in [space.smallest(), space.largest(), *(allowed.sample(rng) for _ in range(300))]:
        assert {(placed.block, placed.input) for placed in lower(space, arch)} <= found


@pytest.mark.parametrize("name", ["ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"])
def test_nothing_is_found_that_no_network_has(name: str) -> None:
    space = space_of(name)
    rng = np.random.default_rng(0)
    used = {(placed.block, placed.input) for _ in range(6000) for placed in lower(space, space.sample(rng))}
    assert {(placed.block, placed.input) for placed in blocks_of_space(space)} == used


@pytest.mark.parametrize("name", [*space_names(), *OTHER_INPUTS])
@given(data=st.data())
@settings(max_examples=20)
def test_every_place_holds_the_block_that_lowering_puts_there(name: str, data: st.DataObject) -> None:
    space = space_of(name)
    space = space.restrict(resolution=(space.resolutions[0], space.resolutions[-1]))
    arch = data.draw(archs(space))
    row, inventory = space.encode(arch), inventory_of(space)
    numbers = {place.name: int(place.blocks[tuple(row[column] for column in place.columns)]) for place in inventory.places}
    found = {place: inventory.blocks[number] for place, number in numbers.items() if number != NOTHING}
    expected = {placed.name: (placed.block, placed.input) for placed in lower(space, arch)}
    assert {place: (placed.block, placed.input) for place, placed in found.items()} == expected


@pytest.mark.parametrize("name", [*space_names(), *OTHER_INPUTS])
def test_each_is_found_once(name: str) -> None:
    blocks = [(placed.block, placed.input) for placed in blocks_of_space(space_of(name))]
    assert len(set(blocks)) == len(blocks)


def test_a_resolution_of_no_network_is_refused() -> None:
    with pytest.raises(SpaceError, match="resolution"):
        blocks_of_space(get_space("ofa-mbv3-tiny"), [17])
