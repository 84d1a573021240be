"""Networks of many kinds, with random weights: each is adopted whole, and its subnets are parts of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.ofa.adopting.contract import Contract, randomized
from tests.zoo.architectures import ARCHITECTURES

# Other people's libraries warn of much that is not this project's to mend.
pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]

SECONDS = 60
"""Of processor time, of which a machine takes as much as it has: what an adoption may take at most."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_adopted(name: str, record_property: Callable[[str, object], None]) -> None:
    architecture = ARCHITECTURES[name]
    contract = Contract(randomized(architecture.build()), (3, architecture.side, architecture.side))
    adoption = contract.adoption
    for key, value in {
        "elastic share": adoption.elastic_share,
        "blocks": len(adoption.space.blocks),
        "codes": len(adoption.space.codes),
        "seconds": contract.seconds,
        "difference": adoption.difference,
    }.items():
        record_property(key, value)
    contract.check()
    contract.exported_networks_are_the_subnets()
    assert adoption.elastic_share >= architecture.least
    assert contract.seconds <= SECONDS
