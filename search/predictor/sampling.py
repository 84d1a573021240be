"""Stratified samples of a space, from its smallest network to its largest.

Shapes: N networks, C columns of the space.
"""

from __future__ import annotations

import numpy as np

from ofa.arch import Arch
from ofa.arrays import Rows
from ofa.errors import SearchError
from ofa.space import Space
from search.predictor.features import log_macs

__all__ = ["sample_stratified"]

_DRAWS_PER_NETWORK = 8
"""Candidates per sampled network: enough that nearly every stratum of MACs has one."""


def sample_stratified(space: Space, n: int, rng: np.random.Generator) -> list[Arch]:
    """Draw ``n`` different networks evenly over the logarithm of MACs, with the smallest and the largest network of the space.

    Independent uniform genes give networks of medium size only, and a predictor fitted to them extrapolates at both ends of the front. So
    half of the candidates lean to small or large genes, and each stratum of MACs yields one network.

    Args:
        space: the space.
        n: number of networks, at least 2.
        rng: draws the networks.

    Returns:
        The networks, ascending in MACs.

    Raises:
        SearchError: ``n`` is below 2 or above the number of networks in the space.
    """
    if not 2 <= n <= space.size:
        raise SearchError(f"a sample of {space.name} must have 2 to {space.size} networks, but n is {n}; choose a number between")
    ends_2C = space.encode_all([space.smallest(), space.largest()])
    inner_NC = _candidates(space, n, rng)
    inner_NC = inner_NC[(inner_NC[:, None] != ends_2C).any(axis=2).all(axis=1)]
    size_N = log_macs(space, inner_NC)
    low, high = log_macs(space, ends_2C).tolist()
    stratum_N = np.searchsorted(np.linspace(low, high, n - 1)[1:-1], size_N)
    order = rng.permutation(len(inner_NC))
    # Round-robin over the strata, by the rank of a network within its stratum.
    rank_N = np.zeros(len(inner_NC), dtype=np.int64)
    for s in np.unique(stratum_N):
        members = order[stratum_N[order] == s]
        rank_N[members] = np.arange(len(members))
    chosen = order[np.argsort(rank_N[order], kind="stable")][: n - 2]
    chosen = chosen[np.argsort(size_N[chosen], kind="stable")]
    rows_NC = np.concatenate([ends_2C[:1], inner_NC[chosen], ends_2C[1:]])[:n]
    return [space.decode(row) for row in rows_NC.tolist()]


def _candidates(space: Space, n: int, rng: np.random.Generator) -> Rows:
    """Different networks of all sizes: at least ``n``, besides both ends of the space, if it has so many."""
    count = _DRAWS_PER_NETWORK * n // 2
    drawn_NC = np.concatenate([space.sample_rows(count, rng), space.sample_leaning_rows(count, rng)])
    different_NC = np.unique(drawn_NC, axis=0)
    return different_NC if len(different_NC) >= n else space.encode_all(_walk(space, n))


def _walk(space: Space, n: int) -> list[Arch]:
    """The first ``n`` networks of a breadth-first walk over neighbours, for samples of nearly the whole space."""
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
