"""Which subnets a training step trains."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ofa.arch import Arch
from ofa.space import Space

__all__ = ["Sampler", "uniform"]


class Sampler(Protocol):
    """Chooses the archs of one step from the part of the space that is free, already cut to one resolution."""

    def __call__(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        """``count`` archs of ``space``."""
        ...


def uniform(space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
    """``count`` archs, every gene drawn uniformly and on its own (Cai et al., ICLR 2020, section 3.3)."""
    return tuple(space.sample(rng) for _ in range(count))
