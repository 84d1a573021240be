"""Main effects of genes over the networks of a front, and trends of genes along it.

Shapes: N networks, C columns of encoded archs (genes), F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from ofa.arrays import Floats, Rows
from ofa.resolution import Resolution
from ofa.space import Number, Space
from search.front.columns import Indices, best_along

__all__ = ["LEAST_NETWORKS", "Effect", "Effects", "Trend", "main_effects", "trends"]

LEAST_NETWORKS = 30
"""With fewer networks the effect of a gene cannot be told from chance."""

_ALPHAS = np.logspace(-3, 3, 13)
_FOLDS = 5
_SEED = 0  # seed of the folds, so that reports are reproducible
_BINS = 12


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Main effect of one gene on a number (accuracy or a cost), over the networks with that gene.

    Attributes:
        gene: column of the gene, such as ``stages.1.0.kernel``.
        size: standard deviation of its contribution over these networks, in the number's unit.
        values: each value that occurs, with its share of these networks and its contribution relative to their mean.
    """

    gene: str
    size: float
    values: tuple[tuple[Number | Resolution, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Main effects of all genes with more than one value.

    Attributes:
        by_gene: the effects by column.
        explained: cross-validated share of the number's variance that the effects explain (R², at most 1).
        networks: number of networks.
    """

    by_gene: dict[str, Effect]
    explained: float
    networks: int

    @property
    def largest(self) -> float:
        """The largest size."""
        return max((effect.size for effect in self.by_gene.values()), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Change of one kind of gene along the front.

    Attributes:
        kind: kind of gene, such as ``kernel`` or ``depth``.
        average: ``median`` (a value that occurs) for genes that a network has once, ``mean`` for genes of its blocks.
        costs: mean cost of each group of networks, ascending.
        means: by stage (or network gene), the gene's average in each group; NaN where no network has it.
    """

    kind: str
    average: str
    costs: Floats
    means: dict[str, Floats]


def main_effects(space: Space, rows_NC: Rows, numbers_N: Floats) -> Effects | None:
    """Main effects of the genes on a number, by ridge regression on one-hot genes.

    Each gene is centred on its mean over the networks with its block, so that the presence of a block counts for its stage's depth. Genes
    that are correlated along a front share their effects.

    Args:
        space: the space of the networks.
        rows_NC: encoded archs of the networks.
        numbers_N: the numbers to explain, such as accuracies.

    Returns:
        The effects; None with fewer than ``LEAST_NETWORKS`` networks, or if all numbers or all genes are equal.
    """
    known_N = np.isfinite(numbers_N)
    rows_NC, numbers_N = rows_NC[known_N], numbers_N[known_N]
    if len(rows_NC) < LEAST_NETWORKS or np.ptp(numbers_N) == 0:
        return None
    x_NF, owners, values, shares = _one_hot(space, rows_NC)
    if not owners:
        return None
    # Standardized numbers: a ridge penalty then means the same for accuracies and for MACs.
    scale = float(numbers_N.std())
    target_N = (numbers_N - numbers_N.mean()) / scale
    model = RidgeCV(alphas=_ALPHAS).fit(x_NF, target_N)
    unseen_N = cross_val_predict(RidgeCV(alphas=_ALPHAS), x_NF, target_N, cv=KFold(_FOLDS, shuffle=True, random_state=_SEED))
    explained = 1.0 - float(np.mean((target_N - unseen_N) ** 2))
    weights_F = np.asarray(model.coef_, dtype=np.float64) * scale
    by_gene = {gene: _effect(gene, owners, weights_F, values, shares) for gene in dict.fromkeys(owners)}
    return Effects(by_gene=by_gene, explained=explained, networks=len(numbers_N))


def _one_hot(space: Space, rows_NC: Rows) -> tuple[Floats, list[str], list[Number | Resolution], list[float]]:
    """Features [N, F], and for each feature its gene, its value, and the value's share of the networks with the gene."""
    features, owners, shares = [], [], []
    values: list[Number | Resolution] = []
    active_NC = space.active(rows_NC)
    for column, gene in enumerate(space.columns):
        has_N, row_N = active_NC[:, column], rows_NC[:, column]
        present = np.unique(row_N[has_N])
        if len(present) < 2:
            continue
        for index in present.tolist():
            is_N = has_N & (row_N == index)
            share = float(is_N.sum() / has_N.sum())
            features.append(np.where(has_N, is_N - share, 0.0))
            owners.append(gene.name)
            values.append(gene.values[index])
            shares.append(share)
    x_NF = np.stack(features, axis=1) if features else np.empty((len(rows_NC), 0))
    return x_NF, owners, values, shares


def _effect(gene: str, owners: list[str], weights_F: Floats, values: list[Number | Resolution], shares: list[float]) -> Effect:
    own = [f for f, owner in enumerate(owners) if owner == gene]
    share, weight = np.array([shares[f] for f in own]), weights_F[own]
    contribution = weight - float(share @ weight)
    size = float(np.sqrt(share @ contribution**2))
    triples = zip((values[f] for f in own), share.tolist(), contribution.tolist(), strict=True)
    return Effect(gene=gene, size=size, values=tuple(triples))


def trends(space: Space, rows_NC: Rows, cost_N: Floats, accuracy_N: Floats) -> tuple[Trend, ...]:
    """Average genes along a cost, of the networks that are more accurate than every cheaper one.

    Args:
        space: the space of the networks.
        rows_NC: encoded archs of the networks.
        cost_N: the cost that orders them.
        accuracy_N: their accuracies.

    Returns:
        One trend for the resolution (geometric mean of its sides), one for the depth, and one for each kind of gene with more than one
        value.
    """
    best = best_along(cost_N, accuracy_N)
    groups = [group for group in np.array_split(best, min(_BINS, len(best))) if len(group)]
    if len(groups) < 2:
        return ()
    active_NC = space.active(rows_NC)
    costs = np.array([cost_N[group].mean() for group in groups])
    kinds: dict[str, dict[str, list[int]]] = {}
    for column, gene in enumerate(space.columns):
        if len(gene.values) > 1:
            kind, owner = _kind_and_owner(gene.name)
            kinds.setdefault(kind, {}).setdefault(owner, []).append(column)

    def values(columns: list[int], group: Indices) -> Floats:
        table = [np.array(space.columns[column].numbers, dtype=np.float64)[rows_NC[group, column]] for column in columns]
        found: Floats = np.stack(table, axis=1)[active_NC[group][:, columns]]
        return found

    found = []
    for kind, own in kinds.items():
        average = "median" if max(map(len, own.values())) == 1 else "mean"
        means = {owner: np.array([_average(values(columns, group), average) for group in groups]) for owner, columns in own.items()}
        found.append(Trend(kind=kind, average=average, costs=costs, means=means))
    return tuple(found)


def _average(values: Floats, average: str) -> float:
    """The mean, or the median as one of the values, never between two."""
    if not len(values):
        return float("nan")
    return float(values.mean() if average == "mean" else np.sort(values)[(len(values) - 1) // 2])


def _kind_and_owner(gene: str) -> tuple[str, str]:
    parts = gene.split(".")
    if parts[0] == "stages":
        return parts[-1], f"stage {int(parts[1]) + 1}"
    # The name of a network gene ends with its kind: stem_inner_width is the width of stem_inner.
    owner, _, kind = gene.rpartition("_")
    return kind, owner.replace("_", " ") or gene
