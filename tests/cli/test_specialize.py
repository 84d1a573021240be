"""``ofa specialize``: what a front promises goes on the card."""

from __future__ import annotations

import pytest

from ofa.cli.specialize import _best_of
from search.budget import Budget
from tests.search.fronts import make_front


@pytest.mark.parametrize(
    ("limits", "device"),
    [({"latency_ms@pi": 1000.0}, "pi"), ({"latency_ms@phone": 1000.0}, "phone"), ({"macs": 1e12}, "phone"), ({"energy_mj@pi": 1e9}, "pi")],
)
def test_the_promise_is_that_of_the_device_that_the_budget_names(limits: dict[str, float], device: str) -> None:
    front = make_front(devices=("phone", "pi"))
    best, chosen = _best_of(front, Budget(limits, expected_latency=True))
    assert chosen == device
    assert best.latencies[device].latency_ms in set(front.networks[f"latency_ms@{device}"])
