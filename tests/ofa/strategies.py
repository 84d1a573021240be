"""Random archs of every family, for tests of what must hold for all of them."""

from __future__ import annotations

from functools import lru_cache

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock, Shape
from ofa.families import derive, get_space, space_names
from ofa.resolution import sides
from ofa.space import Space
from ofa.supernet import Supernet

ALL_SPACES = space_names()
TINY_SPACES = tuple(name for name in ALL_SPACES if name.endswith("-tiny"))
"""One small space of every family: all that is special about a family is in them."""
OTHER_INPUTS = {
    other.name: other
    for space in map(get_space, TINY_SPACES)
    for other in (
        derive(space, f"{space.name}-grey", resolutions=("17x40", "24", "32x18"), in_channels=1),
        derive(space, f"{space.name}-rgba", resolutions=(16, (24, 16)), in_channels=4),
    )
}
"""Of every family, networks of inputs that are not square, of 1 and of 4 channels."""


def archs(space: Space) -> SearchStrategy[Arch]:
    """Archs of ``space``; they shrink to the smallest."""
    return st.tuples(*(st.integers(0, len(gene.values) - 1) for gene in space.columns)).map(space.decode)


def space_of(name: str) -> Space:
    """A named space, or one of ``OTHER_INPUTS``."""
    return OTHER_INPUTS[name] if name in OTHER_INPUTS else get_space(name)


def archs_of(names: tuple[str, ...]) -> SearchStrategy[tuple[Space, Arch]]:
    """A space of those names and one of its archs."""
    return st.sampled_from(names).map(space_of).flatmap(lambda space: st.tuples(st.just(space), archs(space)))


@lru_cache
def shared_supernet(name: str) -> Supernet:
    """A supernet for tests that leave its weights alone, with statistics and kernel matrices that are not trivial."""
    return randomized(Supernet(space_of(name), generator=torch.Generator().manual_seed(0)))


def randomized(supernet: Supernet, seed: int = 1) -> Supernet:
    """The supernet with every stored value moved away from its special initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in supernet.named_tensors().items():
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_var") or ".norm.weight" in name:
                tensor.copy_(0.5 + noise)
            elif tensor.dim() < 4:
                tensor.add_(noise - 0.5, alpha=0.2)
    return supernet


def placed_at(side: int, block: Block, name: str = "block") -> PlacedBlock:
    """A block where images of that side reach it."""
    return PlacedBlock(name, block, Shape(block.in_channels, side, side))


def images(arch: Arch, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random images [B, C, H, W] of the arch's resolution and its space's channels."""
    shape = (batch, space_of(arch.space).in_channels, *sides(arch.resolution))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
