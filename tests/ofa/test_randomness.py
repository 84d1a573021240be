from __future__ import annotations

import torch

from ofa.randomness import _seed, borrowed_randomness


def test_inside_the_global_generator_continues_the_one_that_is_lent() -> None:
    generator, before = torch.Generator().manual_seed(3), torch.get_rng_state()
    with borrowed_randomness(generator):
        drawn = torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(5, generator=generator), drawn)


def test_a_gpu_gets_another_seed_wherever_the_generator_stands() -> None:
    generator = torch.Generator().manual_seed(3)
    state, seeds = generator.get_state(), []
    for _ in range(3):
        seeds.append(_seed(generator))
        assert _seed(generator) == seeds[-1]
        torch.rand(1, generator=generator)
    assert len(set(seeds)) == 3
    generator.set_state(state)
    assert _seed(generator) == seeds[0]
