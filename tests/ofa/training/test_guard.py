from __future__ import annotations

import math

import numpy as np
import pytest

from ofa.training.guard import Guard


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_seen_at_once(loss: float) -> None:
    assert Guard().check(loss, 0.5) == f"the loss became {loss}"


def test_a_collapse_is_seen_within_a_few_steps() -> None:
    guard = Guard()
    assert all(guard.check(0.5, 0.8) is None for _ in range(100))
    seen = next(step for step in range(60) if guard.check(2.3, 0.1))
    assert 5 < seen < 40


def test_noise_and_hard_batches_are_no_collapse() -> None:
    rng, guard = np.random.default_rng(0), Guard()
    for step in range(2000):
        level = 2.3 * math.exp(-step / 500) + 0.3
        loss = level * float(rng.uniform(0.5, 1.6))
        accuracy = float(np.clip(1 - level / 2.6 + rng.normal(0, 0.08), 0, 1))
        assert guard.check(loss, accuracy) is None
    assert all(guard.check(1.2, 0.75) is None for _ in range(5))


def test_a_harder_choice_alone_is_no_collapse() -> None:
    """A loss of another kind may rise as long as as many answers are right."""
    guard = Guard()
    assert all(guard.check(0.2, 0.9) is None for _ in range(60))
    assert all(guard.check(1.0, 0.85) is None for _ in range(60))
