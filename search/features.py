"""Archs as arrays: what a predictor sees of a network, and samples that cover a space from its smallest to its largest.

Shapes: N archs, C columns of the space, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.arch import Arch
from ofa.cost import macs
from ofa.errors import SearchError
from ofa.families import lower
from ofa.space import Space
from search.pareto import Bools, Floats

__all__ = ["active_columns", "features", "log_macs", "sample_stratified"]

Rows = NDArray[np.int64]

_DRAWS_PER_NETWORK = 8
"""Networks drawn for each one kept: enough that nearly every stratum of MACs has one to offer."""


def active_columns(space: Space, rows_NC: Rows) -> Bools:
    """Whether each column of encoded rows belongs to a block that is there; [N, C]."""
    names = [gene.name for gene in space.columns]
    active = np.ones(rows_NC.shape, dtype=np.bool_)
    for c, name in enumerate(names):
        parts = name.split(".")
        if len(parts) == 4:  # stages.STAGE.BLOCK.GENE
            depth = names.index(f"stages.{parts[1]}.depth")
            active[:, c] = np.array(space.columns[depth].values)[rows_NC[:, depth]] > int(parts[2])
    return active


def features(space: Space, archs: Sequence[Arch]) -> Floats:
    """One-hot values of the active genes, zeros for those of skipped blocks, and the logarithm of the MACs; [N, F].

    One-hot because accuracy is not linear in a kernel's size; the MACs because they carry what all genes do together.
    """
    rows_NC = np.array([space.encode(arch) for arch in archs], dtype=np.int64).reshape(len(archs), len(space.columns))
    widths = [len(gene.values) for gene in space.columns]
    one_hot = np.concatenate([rows_NC[:, [c]] == np.arange(width) for c, width in enumerate(widths)], axis=1)
    present = np.repeat(active_columns(space, rows_NC), widths, axis=1)
    return np.concatenate([(one_hot & present).astype(np.float64), log_macs(space, archs)[:, None]], axis=1)


def log_macs(space: Space, archs: Sequence[Arch]) -> Floats:
    """Natural logarithm of the multiply-accumulates of each network; [N]."""
    return np.log(np.array([macs(lower(space, arch)) for arch in archs], dtype=np.float64))


def sample_stratified(space: Space, n: int, rng: np.random.Generator) -> list[Arch]:
    """Draw ``n`` different networks evenly over the logarithm of MACs, the smallest and the largest of the space among them.

    Genes that are drawn independently and uniformly give networks of middling size only, and a predictor fitted to them
    guesses at both ends of the front. Here half of the candidates are drawn with every gene leaning to the small or the large
    side by one common amount, and then each stratum of MACs gives one.

    Args:
        space: where to draw from.
        n: how many networks, at least 2.
        rng: decides which.

    Returns:
        The networks, ascending in MACs.

    Raises:
        SearchError: ``n`` is below 2, or the space has not so many networks.
    """
    if not 2 <= n <= space.size:
        raise SearchError(f"a sample of {space.name} must have 2 to {space.size} networks, but n is {n}; choose a number between")
    pool = _candidates(space, n, rng)
    ends = [space.smallest(), space.largest()]
    inner = [arch for arch in pool if arch not in ends]
    size_N = log_macs(space, inner)
    low, high = log_macs(space, ends).tolist()
    edges = np.linspace(low, high, n - 1)[1:-1]
    stratum_N = np.searchsorted(edges, size_N)
    order = rng.permutation(len(inner))
    # One of each stratum first, then a second of each, and so on: the rank of a network within its stratum decides.
    rank_N = np.zeros(len(inner), dtype=np.int64)
    for s in np.unique(stratum_N):
        members = order[stratum_N[order] == s]
        rank_N[members] = np.arange(len(members))
    chosen = order[np.argsort(rank_N[order], kind="stable")][: n - 2]
    picked = [ends[0], *(inner[i] for i in chosen[np.argsort(size_N[chosen], kind="stable")]), ends[1]]
    return picked[:n]


def _candidates(space: Space, n: int, rng: np.random.Generator) -> list[Arch]:
    """Different networks of all sizes, at least ``n`` where chance allows it."""
    top_C = np.array([len(gene.values) - 1 for gene in space.columns])
    wanted = min(_DRAWS_PER_NETWORK * n, space.size)
    pool = dict.fromkeys([space.smallest(), space.largest()])
    for draw in range(4 * _DRAWS_PER_NETWORK * n):
        if len(pool) >= wanted:
            break
        lean = rng.random() if draw % 2 else None
        pool[space.sample(rng) if lean is None else space.decode(rng.binomial(top_C, lean).tolist())] = None
    return list(pool) if len(pool) >= n else _walk(space, n)


def _walk(space: Space, n: int) -> list[Arch]:
    """The first ``n`` networks met on a walk over all neighbours, for spaces that are asked for nearly all they have."""
    found = {space.smallest(): None, space.largest(): None}
    queue = list(found)
    for arch in queue:
        for neighbour in space.neighbours(arch):
            if neighbour not in found:
                found[neighbour] = None
                queue.append(neighbour)
        if len(found) >= n:
            break
    return list(found)
