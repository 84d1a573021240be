"""Samplers: they choose the subnets that a training step trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ofa.arch import Arch
from ofa.cost import macs
from ofa.errors import RecipeError, nearest
from ofa.families import lower
from ofa.resolution import Resolution
from ofa.space import Space

__all__ = ["SAMPLERS", "BestUp", "Repeated", "Sampler", "Strata", "Uniform", "coupled", "free", "make_sampler"]

Candidates = Callable[[Space, np.random.Generator, float], Arch]
"""Draws one arch of a space. The last argument is the tilt: above 0, large values of all genes are likelier, below 0 small ones."""

_STRATA = 8
_TRIES = 64
"""The most candidates for one arch: enough to hit the rarest of eight strata nearly always, in a few ms."""
_MOST_TILT = 4.0
"""At this tilt the largest of three values is drawn 98 times in 100, so that the extreme costs can be reached."""


class Sampler(Protocol):
    """Chooses the archs of a step; may learn from their losses."""

    def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        """Draw ``count`` archs of ``space``, the phase's part of the whole space at one resolution."""

    def observe(self, archs: Sequence[Arch], losses: Sequence[float]) -> None:
        """Record the losses of one step's archs, all on the same images."""

    def state(self) -> dict[str, NDArray[Any]]:
        """The exact state, so that a resumed run draws the same archs as one that was not stopped."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what ``state`` returned."""


class _Stateless:
    """A sampler that learns nothing.

    Args:
        candidates: draws one arch.
    """

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates

    def observe(self, archs: Sequence[Arch], losses: Sequence[float]) -> None:
        """Do nothing: the sampler learns nothing."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Empty: the sampler has no state."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Do nothing: the sampler has no state."""


class Repeated(_Stateless):
    """Repeats the first few draws of another sampler, so that after them no step has a block for the first time.

    Args:
        sampler: the other sampler.
        draws: number of its draws for each resolution.
    """

    def __init__(self, sampler: Sampler, draws: int) -> None:
        self._sampler, self._draws = sampler, draws
        self._drawn: dict[Resolution, list[tuple[Arch, ...]]] = {}
        self._calls: Counter[Resolution] = Counter()

    def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        """Draw ``count`` archs of ``space``; ``count`` must be the same in all calls."""
        (resolution,) = space.resolutions
        drawn = self._drawn.setdefault(resolution, [])
        if len(drawn) < self._draws:
            drawn.append(self._sampler.draw(space, count, rng))
            return drawn[-1]
        self._calls[resolution] += 1
        return drawn[(self._calls[resolution] - 1) % self._draws]


class Uniform(_Stateless):
    """Draws every gene uniformly and independently (Cai et al., ICLR 2020, section 3.3)."""

    def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        """Draw ``count`` archs of ``space``."""
        return tuple(self._candidates(space, rng, 0.0) for _ in range(count))


class Strata(_Stateless):
    """Stratified sampling by MACs: small and large networks are drawn as often as middling ones.

    Costs of archs with independent genes concentrate in the middle, as sums of independent draws do. Here the MACs between the smallest
    and the largest network are divided into strata of equal width. Each arch comes from a stratum drawn uniformly, without replacement
    within a step until all strata are used. Candidates are tilted at random towards large or small values, because uniform genes
    practically never reach the extreme costs.
    """

    def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        """Draw ``count`` archs of ``space``."""
        low, high = _macs(space, space.smallest()), _macs(space, space.largest())
        order = np.concatenate([rng.permutation(_STRATA) for _ in range(-(-count // _STRATA))])[:count]
        width = (high - low) / _STRATA
        return tuple(self._of(space, low + width * int(number), width, rng) for number in order)

    def _of(self, space: Space, low: float, width: float, rng: np.random.Generator) -> Arch:
        """The first candidate within a stratum, or, after ``_TRIES`` candidates, the one nearest to its middle."""
        middle = low + width / 2
        best, distance = None, np.inf
        for _ in range(_TRIES):
            arch = self._candidates(space, rng, float(rng.uniform(-_MOST_TILT, _MOST_TILT)))
            far = abs(_macs(space, arch) - middle)
            if far < distance:
                best, distance = arch, far
            if far <= width / 2:
                break
        assert best is not None
        return best


class BestUp:
    """Chooses the most promising of several networks of about equal cost (AttentiveNAS, Wang et al., CVPR 2021).

    The target cost is the cost of a random arch, so that the distribution of costs stays the same. Losses are predicted by a ridge
    regression on one-hot genes, updated after every step with the step's losses relative to their mean. Old losses are discounted
    exponentially, since the ranking shifts as weights train. Until the regression has seen twice as many networks as it has
    coefficients, archs are drawn at random.

    Args:
        space: the whole space, which fixes the coefficients.
        candidates: draws one arch.
        choices: number of networks to choose from.
    """

    _FORGETTING = 0.998
    _RIDGE = 1.0
    _NEAR = 0.04
    """Costs are about equal within this share of the range of costs."""

    def __init__(self, space: Space, candidates: Candidates, choices: int = 8) -> None:
        self._space, self._candidates, self._choices = space, candidates, choices
        sizes = [len(gene.values) for gene in space.columns]
        self._offsets = np.cumsum([0, *sizes[:-1]])
        length = sum(sizes)
        self._gram: NDArray[np.float64] = np.zeros((length, length))
        self._moments: NDArray[np.float64] = np.zeros(length)
        self._seen = 0
        self._coefficients: NDArray[np.float64] | None = None

    def draw(self, space: Space, count: int, rng: np.random.Generator) -> tuple[Arch, ...]:
        """Draw ``count`` archs of ``space``."""
        return tuple(self._one(space, rng) for _ in range(count))

    def _one(self, space: Space, rng: np.random.Generator) -> Arch:
        target = self._candidates(space, rng, 0.0)
        if self._seen < 2 * len(self._moments):
            return target
        cost = _macs(space, target)
        near = self._NEAR * (_macs(space, space.largest()) - _macs(space, space.smallest()))
        found = [target]
        for _ in range(_TRIES):
            if len(found) == self._choices:
                break
            arch = self._candidates(space, rng, 0.0)
            if abs(_macs(space, arch) - cost) <= near:
                found.append(arch)
        coefficients = self._fitted()
        return min(found, key=lambda arch: coefficients[self._columns(arch)].sum())

    def observe(self, archs: Sequence[Arch], losses: Sequence[float]) -> None:
        """Record the losses of one step's archs; a single loss is ignored, because only differences within a step count."""
        if len(archs) < 2:
            return
        mean = sum(losses) / len(losses)
        self._gram *= self._FORGETTING
        self._moments *= self._FORGETTING
        for arch, loss in zip(archs, losses, strict=True):
            columns = self._columns(arch)
            self._gram[np.ix_(columns, columns)] += 1
            self._moments[columns] += loss - mean
        self._seen += len(archs)
        self._coefficients = None

    def state(self) -> dict[str, NDArray[Any]]:
        """The discounted sums that the regression is solved from, and the number of networks seen."""
        return {"gram": self._gram, "moments": self._moments, "seen": np.array(self._seen)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what ``state`` returned."""
        self._gram, self._moments, self._seen = state["gram"].copy(), state["moments"].copy(), int(state["seen"])
        self._coefficients = None

    def _fitted(self) -> NDArray[np.float64]:
        if self._coefficients is None:
            solved = np.linalg.solve(self._gram + self._RIDGE * np.eye(len(self._moments)), self._moments)
            self._coefficients = solved.astype(np.float64)
        return self._coefficients

    def _columns(self, arch: Arch) -> NDArray[np.int64]:
        """The one-hot columns of an arch's genes; genes of skipped blocks have their smallest value, as in the encoding."""
        columns: NDArray[np.int64] = self._offsets + np.array(self._space.encode(arch))
        return columns


def free(space: Space, rng: np.random.Generator, tilt: float = 0.0) -> Arch:
    """Draw an arch with independent genes.

    Args:
        space: the space to draw from.
        rng: random generator.
        tilt: each value is ``exp(tilt)`` times as likely as the next smaller one; 0 draws uniformly.

    Returns:
        The arch.
    """
    return space.decode([_index(len(gene.values), rng, tilt) for gene in space.columns])


def _index(choices: int, rng: np.random.Generator, tilt: float) -> int:
    if tilt == 0:
        return int(rng.integers(choices))
    weights = np.exp(tilt * (np.arange(choices) - (choices - 1)))
    return int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum()))


def coupled(space: Space, rng: np.random.Generator, tilt: float = 0.0) -> Arch:
    """Draw an arch with coupled depth and width of each stage (CompOFA, Sahni et al., ICLR 2021, section 3).

    The i-th depth of a stage goes with the i-th value of the width genes of all its blocks, in proportion where they differ in their
    number of choices. Kernels, the resolution and the genes of the whole network (such as ResNet's stage widths) are independent.
    Arguments are as of ``free``.
    """
    row: list[int] = []
    share = 0.0
    for gene in space.columns:
        kind = gene.name.rpartition(".")[2]
        choices = len(gene.values)
        if gene.name.startswith("stages.") and kind != "depth" and "kernel" not in kind:
            row.append(round(share * (choices - 1)))
            continue
        row.append(_index(choices, rng, tilt))
        if kind == "depth":
            share = row[-1] / (choices - 1) if choices > 1 else rng.random()
    return space.decode(row)


SAMPLERS = ("uniform", "strata", "best-up")


def make_sampler(name: str, space: Space, *, coupled_genes: bool = False) -> Sampler:
    """The sampler of a name.

    Args:
        name: one of ``SAMPLERS``.
        space: the whole space of the supernet.
        coupled_genes: whether depth and width are chosen together.

    Returns:
        The sampler.

    Raises:
        RecipeError: no sampler has this name.
    """
    candidates: Candidates = coupled if coupled_genes else free
    if name == "uniform":
        return Uniform(candidates)
    if name == "strata":
        return Strata(candidates)
    if name == "best-up":
        return BestUp(space, candidates)
    raise RecipeError(f"sampling must be one of the samplers, but is '{name}'; {nearest(name, SAMPLERS)}")


@lru_cache(maxsize=65536)
def _macs(space: Space, arch: Arch) -> int:
    return macs(lower(space, arch))
