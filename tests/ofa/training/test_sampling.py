from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa.arch import Arch
from ofa.cost import macs
from ofa.errors import RecipeError
from ofa.families import get_space, lower
from ofa.space import Space
from ofa.training.sampling import SAMPLERS, Repeated, coupled, make_sampler
from tests.ofa.strategies import TINY_SPACES

FAMILIES = (*TINY_SPACES, "ofa-mbv3-32px")


def at_one_resolution(space: Space) -> Space:
    return space.restrict(resolution=space.resolutions[:1])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(FAMILIES), sampler=st.sampled_from(SAMPLERS), together=st.booleans())
def test_every_draw_is_a_point_of_the_space_that_is_free(seed: int, name: str, sampler: str, together: bool) -> None:
    whole, rng = get_space(name), np.random.default_rng(seed)
    depths = max(len(stage.depths) for stage in whole.stages)
    part = at_one_resolution(whole).restrict(depth=range(int(rng.integers(1, depths + 1))))
    drawn = make_sampler(sampler, whole, coupled_genes=together).draw(part, 5, rng)
    assert len(drawn) == 5
    assert all(arch in part and arch in whole for arch in drawn)


def test_strata_are_met_alike_where_uniform_genes_pile_up_in_the_middle() -> None:
    space = at_one_resolution(get_space("ofa-mbv3-32px"))
    low, high = (macs(lower(space, arch)) for arch in (space.smallest(), space.largest()))

    def shares(name: str) -> list[float]:
        rng, sampler = np.random.default_rng(0), make_sampler(name, space)
        costs = [macs(lower(space, arch)) for _ in range(40) for arch in sampler.draw(space, 4, rng)]
        counts, _ = np.histogram(costs, bins=4, range=(low, high))
        return list(counts / len(costs))

    uniform, strata = shares("uniform"), shares("strata")
    assert min(strata) > 0.1 > min(uniform)
    assert max(strata) < 0.4 < max(uniform)


def test_archs_of_one_step_are_of_different_strata() -> None:
    space = at_one_resolution(get_space("ofa-mbv3-tiny"))
    drawn = make_sampler("strata", space).draw(space, 8, np.random.default_rng(0))
    assert len({macs(lower(space, arch)) for arch in drawn}) >= 6


def kernels(arch: Arch) -> float:
    return float(np.mean([block["kernel"] for stage in arch.stages for block in stage]))


def test_best_up_learns_which_gene_is_better_and_goes_on_identically_from_its_state() -> None:
    space = at_one_resolution(get_space("ofa-mbv3-tiny"))
    rng = np.random.default_rng(0)
    sampler = make_sampler("best-up", space)
    before = np.mean([kernels(arch) for arch in sampler.draw(space, 40, rng)])
    for step in range(80):
        archs = sampler.draw(space, 4, rng)
        sampler.observe(archs, [10 * (step % 3) - kernels(arch) for arch in archs])  # larger kernels are better, some steps are harder
    after = np.mean([kernels(arch) for arch in sampler.draw(space, 40, rng)])
    assert after > before + 0.3

    copy = make_sampler("best-up", space)
    copy.restore(sampler.state())
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    assert sampler.draw(space, 10, one) == copy.draw(space, 10, other)


def test_best_up_keeps_the_distribution_of_costs() -> None:
    space = at_one_resolution(get_space("ofa-mbv3-tiny"))
    rng, sampler = np.random.default_rng(0), make_sampler("best-up", space)
    for _ in range(80):
        archs = sampler.draw(space, 4, rng)
        sampler.observe(archs, [float(-macs(lower(space, arch))) for arch in archs])  # the dearer the better: no reason to cheat
    plain = [macs(lower(space, arch)) for arch in make_sampler("uniform", space).draw(space, 200, rng)]
    chosen = [macs(lower(space, arch)) for arch in sampler.draw(space, 200, rng)]
    assert np.mean(chosen) / np.mean(plain) < 1.12


def test_coupled_depth_and_width_go_together() -> None:
    space = get_space("ofa-mbv3-w1.0")
    rng = np.random.default_rng(0)
    for _ in range(50):
        for blocks in coupled(space, rng).stages:
            assert {block["expand"] for block in blocks} == {{2: 3, 3: 4, 4: 6}[len(blocks)]}


def test_an_unknown_sampler_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'strata'"):
        make_sampler("strat", get_space("ofa-mbv3-tiny"))


def test_a_repeated_sampler_draws_some_times_and_then_the_same_again() -> None:
    space = get_space("ofa-mbv3-tiny")
    rng = np.random.default_rng(0)
    sampler = Repeated(make_sampler("uniform", space), draws=2)
    for resolution in space.resolutions[:2]:
        cut = space.restrict(resolution=(resolution,))
        drawn = [sampler.draw(cut, 3, rng) for _ in range(6)]
        assert drawn[0] != drawn[1]
        assert drawn == [drawn[0], drawn[1]] * 3
        assert all(arch.resolution == resolution for archs in drawn for arch in archs)
