"""Predicts the accuracy loss of quantization for all networks of a space from a few measured ones, with intervals.

Shapes: N networks, M networks fitted to, C columns of the space.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.linear_model import BayesianRidge

from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.errors import OfaError, SearchError
from ofa.families import stored_space, whole_of
from ofa.parquet import Kind, now
from ofa.space import Space
from search.predictor.ensemble import LeftOut
from search.predictor.training_data import LEAST_NETWORKS
from search.predictor.validation import Trust, interval_width, trust_of

__all__ = ["LossInfo", "QuantizationLoss"]

_CLEARLY = 0.9
"""Use the regression on genes only if its error is below this share of the error of predicting the mean."""
_MADE_BY = "ofa predictor quantization"


@dataclass(frozen=True, kw_only=True)
class LossInfo:
    """Metadata of measured losses.

    Attributes:
        space: name of the space of the networks.
        num_classes: number of classes of the networks.
        space_json: the whole space (``Space.to_json``).
        precision: precision of the quantized networks.
        metric: name of the score.
        how: quantization method.
        fitted_images, judging_images: number of images that calibrated the activation ranges, and of images that were scored.
        instructions: instruction sets of the processor that computed int8; on other processors the last bits differ.
        by_genes: whether the loss is predicted from genes; otherwise it is the mean of all measured losses.
        width: half width of a 90 % interval, in standard deviations.
        trust: leave-one-out quality of the predictions; ``accuracy`` there means the loss.
        date: date of the measurement.
    """

    space: str
    num_classes: int
    space_json: Mapping[str, Any]
    precision: str
    metric: str = "accuracy"
    how: str
    fitted_images: int
    judging_images: int
    instructions: tuple[str, ...] = ()
    by_genes: bool
    width: float
    trust: Trust
    date: str = field(default_factory=now)


_SCORES = ("float_score", "score")
_FILES = Kind(
    name="quantization loss",
    info=LossInfo,
    schema=1,
    sealed=1,
    columns={"arch": str, **dict.fromkeys(_SCORES, float)},
    made_by=_MADE_BY,
)


class QuantizationLoss:
    """Predicts the accuracy loss of networks in a precision; made by ``fit`` or ``load``. It is a ``LossSource`` of a search.

    Bayesian ridge regression (MacKay, "Bayesian Interpolation", 1992) on the columns of encoded archs. If it does not clearly beat the mean
    loss in leave-one-out predictions, every network is expected to lose the mean: otherwise a search would exploit the noise (optimizer's
    curse).

    Attributes:
        space: the space of the networks.
        info: metadata and quality of the fit.
    """

    def __init__(self, space: Space, archs: Sequence[Arch], scores_M2: Floats, info: LossInfo) -> None:
        self.space, self.info = space, info
        self._archs, self._scores_M2 = tuple(archs), scores_M2
        self._model = _Model(space.encode_all(archs), self._lost, 1 / info.judging_images, by_genes=info.by_genes)

    @classmethod
    def fit(cls, space: Space, archs: Sequence[Arch], scores_M2: Floats, **about: Any) -> Self:
        """Fit to measured networks, and measure the quality by leave-one-out predictions.

        Args:
            space: the space of ``archs``.
            archs: measured networks, without duplicates.
            scores_M2: score (0..1) of each network in float32 and in the precision; [M, 2].
            about: fields of ``LossInfo`` about the measurement.

        Returns:
            The fitted losses.

        Raises:
            SearchError: fewer than 10 different networks, or scores outside 0..1.
            ArchError: a network of another space.
        """
        whole, scores_M2 = whole_of(space), np.asarray(scores_M2, dtype=np.float64)
        _check(archs, scores_M2)
        losses_M = _losses(scores_M2)
        step, rows_MC = 1 / about["judging_images"], whole.encode_all(archs)
        same, genes = (_left_out(rows_MC, losses_M, step, by_genes=by_genes) for by_genes in (False, True))
        by_genes = _rmse(genes, losses_M) < _CLEARLY * _rmse(same, losses_M)
        left_out = genes if by_genes else same
        trust = trust_of(left_out, losses_M, np.ones(len(archs), dtype=np.bool_))
        info = LossInfo(
            space=whole.name,
            num_classes=whole.num_classes,
            space_json=whole.to_json(),
            by_genes=by_genes,
            width=interval_width(left_out.score),
            trust=trust if by_genes else replace(trust, kendall_tau=0.0),  # a mean ranks nothing
            **about,
        )
        return cls(whole, archs, scores_M2, info)

    @property
    def precision(self) -> str:
        """Precision of the quantized networks."""
        return self.info.precision

    @cached_property
    def _lost(self) -> Floats:
        """Loss of each measured network; [M]."""
        return _losses(self._scores_M2)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest measured loss."""
        return float(self._lost.min()), float(self._lost.max())

    @property
    def mean(self) -> float:
        """The mean measured loss."""
        return float(self._lost.mean())

    @property
    def provenance(self) -> dict[str, Any]:
        """Measurement and quality of the predictions, as JSON values."""
        about = {name: getattr(self.info, name) for name in ("metric", "how", "by_genes", "fitted_images", "judging_images", "date")}
        return {**about, "mean_loss": self.mean, **asdict(self.info.trust)}

    def losses_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """Expected losses of encoded archs of ``space`` (negative: gain), and half widths of their 90 % intervals; [N] each.

        Conformal intervals: so many of the model's standard deviations (with measurement noise) wide that 90 % of the left-out networks lie
        inside.
        """
        expected_N, deviation_N = self._model(rows_NC)
        return expected_N, self.info.width * deviation_N

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the measured networks and the metadata as a Parquet file."""
        texts = [json.dumps(arch.to_json()) for arch in self._archs]
        _FILES.write(pd.DataFrame({"arch": texts, **dict(zip(_SCORES, self._scores_M2.T, strict=True))}), self.info, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that ``save`` wrote, and fit again to its data.

        Raises:
            FileError: the file is absent, damaged, of another kind, or of an unsupported schema.
            SpaceError: the class of its space has not been imported.
            SearchError: its values are out of range.
        """
        rows, info = _FILES.read(path)
        space = stored_space(info.space_json, info.space, info.num_classes, f"'{path}'")
        try:
            archs, scores_M2 = [Arch.from_text(text) for text in rows["arch"]], rows[list(_SCORES)].to_numpy(dtype=np.float64)
            _check(archs, scores_M2)
            if info.judging_images < 1 or not info.width >= 0:
                raise SearchError(f"losses need at least 1 image and a width from 0, but have {info.judging_images} and {info.width:g}")
            return cls(space, archs, scores_M2, info)
        except (OfaError, KeyError, TypeError, ValueError) as error:
            raise _FILES.incomplete(path, f"reading it met: {error}") from error


def _losses(scores_M2: Floats) -> Floats:
    return np.asarray(scores_M2[:, 0] - scores_M2[:, 1])


class _Model:
    """The regression on standardized columns; its standard deviation is at least the resolution of a score.

    Args:
        rows_MC: encoded archs of the measured networks.
        losses_M: their losses.
        step: resolution of a score: the share of one image.
        by_genes: whether to use the columns; otherwise the mean loss is predicted.
    """

    def __init__(self, rows_MC: Rows, losses_M: Floats, step: float, *, by_genes: bool) -> None:
        self._step, self._mean_C, spread_C = step, rows_MC.mean(axis=0), rows_MC.std(axis=0)
        self._kept = np.flatnonzero(spread_C > 0)
        self._spread_C = spread_C[self._kept]
        self._ridge = BayesianRidge().fit(self._features(rows_MC), losses_M) if by_genes else None
        self._mean = float(losses_M.mean())
        self._deviation = float(losses_M.std(ddof=1)) * math.sqrt(1 + 1 / len(losses_M))

    def __call__(self, rows_NC: Rows) -> tuple[Floats, Floats]:
        """Expected losses and their standard deviations, [N] each."""
        if self._ridge is None or not len(rows_NC):
            return np.full(len(rows_NC), self._mean), np.full(len(rows_NC), max(self._deviation, self._step))
        expected_N, deviation_N = self._ridge.predict(self._features(rows_NC), return_std=True)
        return expected_N, np.maximum(deviation_N, self._step)

    def _features(self, rows_NC: Rows) -> Floats:
        features_NC: Floats = (rows_NC[:, self._kept] - self._mean_C[self._kept]) / self._spread_C
        return features_NC


def _left_out(rows_MC: Rows, losses_M: Floats, step: float, *, by_genes: bool) -> LeftOut:
    """Leave-one-out predictions of the measured networks."""
    count = len(losses_M)
    expected_M, deviation_M = np.empty((2, count))
    for number in range(count):
        others = np.arange(count) != number
        model = _Model(rows_MC[others], losses_M[others], step, by_genes=by_genes)
        expected_M[~others], deviation_M[~others] = model(rows_MC[~others])
    return LeftOut(np.arange(count), expected_M, np.abs(losses_M - expected_M) / deviation_M, deviation_M)


def _rmse(left_out: LeftOut, losses_M: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(left_out.accuracy - losses_M))))


def _check(archs: Sequence[Arch], scores_M2: Floats) -> None:
    if scores_M2.shape != (len(archs), 2) or not ((scores_M2 >= 0) & (scores_M2 <= 1)).all():
        raise SearchError("losses need two scores in 0..1 for each network, in float32 and in the precision; measure them again")
    if len(set(archs)) < max(LEAST_NETWORKS, len(archs)):
        raise SearchError(f"losses need at least {LEAST_NETWORKS} different networks, but got {len(set(archs))}; measure more")
