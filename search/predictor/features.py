"""Features of encoded archs for a predictor, as arrays of numbers.

Shapes: N networks, C columns of the space, F features, H of them one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.resolution import aspect, mean_side
from ofa.row_costs import costs_of
from ofa.space import Space

__all__ = ["Feature", "FeatureMap", "feature_map", "features", "log_macs"]

_HOT = 2.0
"""Value of a one-hot feature that is set. A gene with three values then has about the standard deviation of the sums, 1."""

_NETWORK = -1


@dataclass(frozen=True)
class Feature:
    """Description of one feature column.

    Attributes:
        kind: name of the gene, or ``depth``, ``resolution``, ``aspect``, ``macs``.
        stage: index of its stage; -1 for a feature of the whole network.
        hot: whether it is a one-hot value of one gene; else it is a number that describes a whole stage or network.
    """

    kind: str
    stage: int
    hot: bool


class FeatureMap:
    """The features of the networks of a space, all of similar scale; made and cached by ``feature_map``.

    First the one-hot values of all genes but the resolution, with zeros for skipped blocks. One-hot coding assumes no order among a gene's
    values. Then per stage the depth, and the sum of every gene over the blocks as a share of its largest value. Last, for the whole
    network, the logarithms of its resolution (geometric mean of its sides), its aspect ratio and its MACs. Sums and logarithms are joint
    effects of many genes, which a few networks suffice to learn.

    Attributes:
        features: descriptions of the columns; [F].
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        hot, self._column_H, self._value_H = _hot_features(space)
        sums, self._weights_HS = _sums(space, hot, self._column_H, self._value_H)
        whole = [Feature(kind, _NETWORK, hot=False) for kind in ("resolution", "aspect", "macs")]
        self._log_sizes_R2 = np.log([(mean_side(each), aspect(each)) for each in space.resolutions])
        ends = [arch for each in space.resolutions for arch in (space.smallest(each), space.largest(each))]
        ends_NF = self._numbers(space.encode_all(ends))
        middle_F, range_F = (ends_NF.min(axis=0) + ends_NF.max(axis=0)) / 2, np.ptp(ends_NF, axis=0)
        # Drop constant features.
        self._kept_F = np.flatnonzero(range_F > 0)
        self._middle_F, self._scale_F = middle_F[self._kept_F], range_F[self._kept_F] / 4
        self.features = (*hot, *(each for each, span in zip((*sums, *whole), range_F, strict=True) if span > 0))

    def __call__(self, rows_NC: Rows) -> Floats:
        """The features of encoded archs, as of ``Space.encode``; [N, F]."""
        x_NF = np.empty((len(rows_NC), len(self.features)))
        hot_NH = self._hot(rows_NC)
        np.multiply(hot_NH, _HOT, out=x_NF[:, : hot_NH.shape[1]])
        numbers_NF = self._numbers(rows_NC, hot_NH)[:, self._kept_F]
        np.divide(numbers_NF - self._middle_F, self._scale_F, out=x_NF[:, hot_NH.shape[1] :])
        return x_NF

    def _hot(self, rows_NC: Rows) -> Floats:
        canonical_NC = np.where(self.space.active(rows_NC), rows_NC, -1)
        return np.asarray(canonical_NC[:, self._column_H] == self._value_H, dtype=np.float64)

    def _numbers(self, rows_NC: Rows, hot_NH: Floats | None = None) -> Floats:
        hot_NH = self._hot(rows_NC) if hot_NH is None else hot_NH
        return np.column_stack([hot_NH @ self._weights_HS, self._log_sizes_R2[rows_NC[:, 0]], log_macs(self.space, rows_NC)])


@lru_cache(maxsize=16)
def feature_map(space: Space) -> FeatureMap:
    """The feature map of a space, compiled once per space."""
    return FeatureMap(space)


def features(space: Space, archs: Sequence[Arch]) -> Floats:
    """One-hot values (0 or 1) of all active genes including the resolution, and last the logarithm of the MACs; [N, F].

    They are not rescaled; meant for synthetic ground truths, such as a linear one.
    """
    rows_NC = space.encode_all(archs)
    canonical_NC = np.where(space.active(rows_NC), rows_NC, -1)
    one_hot = [canonical_NC[:, [column]] == np.arange(width) for column, width in enumerate(space.cardinalities)]
    return np.column_stack([*(hot.astype(np.float64) for hot in one_hot), log_macs(space, rows_NC)])


def log_macs(space: Space, rows_NC: Rows) -> Floats:
    """Natural logarithm of the multiply-accumulates of encoded archs; [N]."""
    return np.log(costs_of(space)(rows_NC, ("macs",))["macs"])


def _hot_features(space: Space) -> tuple[list[Feature], Rows, Rows]:
    """The one-hot features, and for each the column of the encoded arch and the gene's index that sets it."""
    found: list[Feature] = []
    columns: list[int] = []
    values: list[int] = []
    for column, gene in enumerate(space.columns[1:], start=1):
        if len(gene.values) == 1:
            continue
        feature = Feature(gene.name.rpartition(".")[2], _stage(gene.name), hot=True)
        found += [feature] * len(gene.values)
        columns += [column] * len(gene.values)
        values += range(len(gene.values))
    return found, np.array(columns, dtype=np.intp), np.array(values, dtype=np.int8)


def _sums(space: Space, hot: Sequence[Feature], column_H: Rows, value_H: Rows) -> tuple[list[Feature], Floats]:
    """The features that are sums over the blocks of a stage, and the summand of each one-hot feature; [H, S]."""
    sums = list(dict.fromkeys(Feature(each.kind, each.stage, hot=False) for each in hot))
    weights_HS = np.zeros((len(hot), len(sums)))
    for h, each in enumerate(hot):
        values = space.columns[column_H[h]].numbers
        weights_HS[h, sums.index(Feature(each.kind, each.stage, hot=False))] = values[value_H[h]] / values[-1]
    return sums, weights_HS


def _stage(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "stages" else _NETWORK
