"""Samples that cover a space from its smallest network to its largest.

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
"""Networks drawn for each one kept: enough that nearly every stratum of MACs has one to offer."""


def sample_stratified(space: Space, n: int, rng: np.random.Generator) -> list[Arch]:
    """Draw ``n`` different networks evenly over the logarithm of MACs, the smallest and the largest of the space among them.

    Genes that are drawn independently and uniformly give networks of middling size only, and a predictor fitted to them
    guesses at both ends of the front. Here half of the candidates lean to one side, and then each stratum of MACs gives one.

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
    ends_2C = space.encode_all([space.smallest(), space.largest()])
    inner_NC = _candidates(space, n, rng)
    inner_NC = inner_NC[(inner_NC[:, None] != ends_2C).any(axis=2).all(axis=1)]
    size_N = log_macs(space, inner_NC)
    low, high = log_macs(space, ends_2C).tolist()
    stratum_N = np.searchsorted(np.linspace(low, high, n - 1)[1:-1], size_N)
    order = rng.permutation(len(inner_NC))
    # One of each stratum first, then a second of each, and so on: the rank of a network within its stratum decides.
    rank_N = np.zeros(len(inner_NC), dtype=np.int64)
    for s in np.unique(stratum_N):
        members = order[stratum_N[order] == s]
        rank_N[members] = np.arange(len(members))
    chosen = order[np.argsort(rank_N[order], kind="stable")][: n - 2]
    chosen = chosen[np.argsort(size_N[chosen], kind="stable")]
    rows_NC = np.concatenate([ends_2C[:1], inner_NC[chosen], ends_2C[1:]])[:n]
    return [space.decode(row) for row in rows_NC.tolist()]


def _candidates(space: Space, n: int, rng: np.random.Generator) -> Rows:
    """Different networks of all sizes, at least ``n`` and both ends of the space besides, where there are so many."""
    count = _DRAWS_PER_NETWORK * n // 2
    drawn_NC = np.concatenate([space.sample_rows(count, rng), space.sample_leaning_rows(count, rng)])
    different_NC = np.unique(drawn_NC, axis=0)
    return different_NC if len(different_NC) >= n else space.encode_all(_walk(space, n))


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
