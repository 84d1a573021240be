"""An accuracy predictor: measured networks, a regression from them to all others, and its cross-validated quality.

Shapes: N networks, M networks fitted to, C columns of the space.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from ofa.arch import Arch
from ofa.arrays import Bools, Floats, Rows
from ofa.errors import SearchError, SpaceError
from ofa.families import stored_space, whole_of
from ofa.parquet import Kind, now
from ofa.resolution import aspect, resolutions_to_json
from ofa.space import Space
from search.predictor.ensemble import Ensemble, cross_validate
from search.predictor.features import FeatureMap, feature_map
from search.predictor.training_data import LEAST_NETWORKS, check_measured, distinct
from search.predictor.validation import Trust, interval_width, trust_of

__all__ = ["AccuracyPredictor", "PredictorInfo", "fit_ensemble"]

_MADE_BY = "ofa predictor fit"
_MODEL = "2 Gaussian processes"
_FOLDS = 10
_CHUNK = 2048
"""Networks whose features are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class PredictorInfo:
    """Metadata of a predictor's file, beside the networks that it is fitted to.

    Attributes:
        space: name of the space of its networks.
        num_classes: number of classes of its networks.
        space_json: the whole space (``Space.to_json``); None in predictors of earlier versions.
        metric: name of the task's score that it predicts.
        parameters: parameters of the ensemble (``Ensemble.parameters``).
        width: half width of a 90 % interval, in standard deviations of the ensemble; None for an interval of 0..1.
        trust, fair_trust: cross-validated quality, on all networks, and on the fair sample if active learning chose others.
        date: date of the fit.
    """

    space: str
    num_classes: int
    space_json: Mapping[str, Any] | None = None
    metric: str = "accuracy"
    parameters: Mapping[str, Any]
    width: float | None
    trust: Trust
    fair_trust: Trust | None = None
    date: str = field(default_factory=now)


_COLUMNS = {"arch": str, "accuracy": float}
_FILES = Kind(name="predictor", info=PredictorInfo, schema=3, oldest=2, sealed=3, columns=_COLUMNS, made_by=_MADE_BY)


class AccuracyPredictor:
    """Predicts accuracies of the networks of one space; made by ``fit`` or ``load``. It is an ``AccuracySource``.

    Attributes:
        space: the predictable part of the space: without resolutions and aspect ratios outside the range of the fitted networks.
        whole: the whole space, with all of its resolutions.
        info: parameters and quality of the fit.
    """

    def __init__(self, space: Space, archs: Sequence[Arch], accuracies: Floats, info: PredictorInfo) -> None:
        self._archs, self._accuracies = tuple(archs), accuracies
        self.info = info
        self.whole = whole_of(space)
        self._map, x_MF = _seen(space, archs)
        self.space = self._map.space
        # Only finding the parameters is costly. The rest is computed again, so no fitted object has to be stored or trusted.
        self._ensemble = Ensemble(self._map.features, x_MF, accuracies, dict(info.parameters))

    @classmethod
    def fit(
        cls,
        space: Space,
        archs: Sequence[Arch],
        accuracies: Sequence[float] | Floats,
        rng: np.random.Generator,
        *,
        fair: Sequence[bool] | Bools | None = None,
        metric: str = "accuracy",
    ) -> Self:
        """Fit to measured networks, and measure the quality by cross-validation.

        Args:
            space: the space of ``archs``: a whole space, or one with fewer choices.
            archs: measured networks, such as those of ``sample_stratified``. Repeated networks count once, with their mean accuracy.
            accuracies: their accuracies (0..1); [N].
            rng: assigns the networks to folds.
            fair: mask of the networks that are a fair sample, if active learning chose the others; [N].
            metric: name of the score.

        Returns:
            The predictor.

        Raises:
            SearchError: fewer than 10 networks, accuracies outside 0..1, or equal accuracies only.
            ArchError: a network of another space.
        """
        values = np.asarray(accuracies, dtype=np.float64)
        check_measured(archs, values)
        fair_M = np.ones(len(archs), dtype=np.bool_) if fair is None else np.asarray(fair, dtype=np.bool_)
        archs, values, fair_M = distinct(archs, values, fair_M)
        ensemble, known, x_MF = fit_ensemble(space, archs, values)
        folds = min(_FOLDS, len(archs))
        left_out = cross_validate(known.features, x_MF, values, folds=folds, rng=rng, start=ensemble.parameters)
        width = interval_width(left_out.score)
        judged_apart = not fair_M.all() and fair_M.sum() >= LEAST_NETWORKS
        info = PredictorInfo(
            space=space.name,
            num_classes=space.num_classes,
            space_json=whole_of(space).to_json(),
            metric=metric,
            parameters=ensemble.parameters,
            width=width if math.isfinite(width) else None,
            trust=trust_of(left_out, values, np.ones_like(fair_M)),
            fair_trust=trust_of(left_out, values, fair_M) if judged_apart else None,
        )
        return cls(space, archs, values, info)

    @property
    def trust(self) -> Trust:
        """Cross-validated quality on all networks that it is fitted to."""
        return self.info.trust

    @property
    def fair_trust(self) -> Trust | None:
        """Cross-validated quality on the fair sample, if active learning chose other networks; else None."""
        return self.info.fair_trust

    @property
    def space_name(self) -> str:
        """Name of its space."""
        return self.space.name

    @property
    def networks(self) -> int:
        """Number of networks that it is fitted to."""
        return len(self._archs)

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest accuracy among the networks that it is fitted to (0..1)."""
        return float(self._accuracies.min()), float(self._accuracies.max())

    @property
    def kendall_tau(self) -> float:
        """Kendall's rank correlation (-1..1) in ``trust``."""
        return self.trust.kendall_tau

    @property
    def rmse(self) -> float:
        """Root mean squared error (0..1) in ``trust``."""
        return self.trust.rmse

    @property
    def provenance(self) -> dict[str, Any]:
        """Model and quality, as JSON values."""
        known = {
            "source": "predicted",
            "metric": self.info.metric,
            "model": _MODEL,
            **asdict(self.trust),
            "resolutions": resolutions_to_json(self.space.resolutions),
        }
        return known if self.fair_trust is None else {**known, "fair_sample": asdict(self.fair_trust)}

    def of_rows(self, rows_NC: Rows) -> Floats:
        """The expected accuracies (0..1) of encoded archs of ``space``; [N]."""
        accuracy_N = np.empty(len(rows_NC))
        for part in _chunks(len(rows_NC)):
            accuracy_N[part] = self._ensemble.expected(self._map(rows_NC[part]))
        return np.clip(accuracy_N, 0.0, 1.0)

    def interval_of_rows(self, rows_NC: Rows) -> tuple[Floats, Floats]:
        """The ends of 90 % prediction intervals of the accuracy (0..1); [N] each.

        Conformal intervals: so many standard deviations of the ensemble wide that 90 % of the left-out networks lie inside (Vovk, Gammerman
        and Shafer, "Algorithmic Learning in a Random World", 2005).
        """
        if self.info.width is None:
            return np.zeros(len(rows_NC)), np.ones(len(rows_NC))
        ends_2N = np.empty((2, len(rows_NC)))
        for part in _chunks(len(rows_NC)):
            ends_2N[:, part] = self._ensemble.interval(self._map(rows_NC[part]), self.info.width)
        low_N, high_N = np.clip(ends_2N, 0.0, 1.0)
        return low_N, high_N

    def __call__(self, archs: Sequence[Arch], /) -> Floats:
        """The expected accuracies (0..1) of ``archs``; [N].

        Raises:
            SpaceError: a network of another space.
            ArchError: a network's resolution is outside the range of the fitted networks.
        """
        return self.of_rows(self._encoded(archs))

    def interval(self, archs: Sequence[Arch]) -> tuple[Floats, Floats]:
        """The ends of the 90 % intervals of ``archs``, as ``interval_of_rows``; errors as ``__call__``."""
        return self.interval_of_rows(self._encoded(archs))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the measured networks and the fitted parameters as a Parquet file."""
        rows = pd.DataFrame({"arch": [json.dumps(arch.to_json()) for arch in self._archs], "accuracy": self._accuracies})
        _FILES.write(rows, self.info, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: Space | None = None) -> Self:
        """Read a predictor and fit it again to its data, with the stored parameters.

        Args:
            path: a file that ``save`` wrote.
            space: the wanted space; None accepts the space of the file.

        Raises:
            FileError: the file is absent, damaged, no predictor, or of an unsupported schema.
            SpaceError: the file is of another space than ``space``, or of another number of classes.
        """
        rows, info = _FILES.read(path)
        if space is not None:
            _check_wanted(path, info, space)
        if rows.empty:
            raise _FILES.incomplete(path, "it holds no networks")
        own = stored_space(info.space_json, info.space, info.num_classes, f"'{path}'")
        try:
            archs, accuracies = [Arch.from_text(text) for text in rows["arch"]], rows["accuracy"].to_numpy(dtype=np.float64)
            check_measured(archs, accuracies)
            loaded = cls(own, archs, accuracies, info)
        except (SearchError, KeyError, TypeError, ValueError) as error:
            raise _FILES.incomplete(path, f"reading it met: {error}") from error
        if space is not None and not space.is_part_of(loaded.whole):
            raise SpaceError(
                f"a predictor knows the networks of one space, but '{path}' is of another that is called {space.name} too; fit one with: "
                f"{_MADE_BY}"
            )
        return loaded

    def _encoded(self, archs: Sequence[Arch]) -> Rows:
        for arch in archs:
            if arch.space != self.space.name:
                raise SpaceError(
                    f"a predictor knows the networks of one space, but this one is of {self.space.name} and got a network of {arch.space}; "
                    f"fit one with: {_MADE_BY}"
                )
        return self.space.encode_all(archs)


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]


def fit_ensemble(space: Space, archs: Sequence[Arch], accuracies: Floats) -> tuple[Ensemble, FeatureMap, Floats]:
    """Fit an ensemble without cross-validation; returns it with the feature map and the features of the fitted networks [M, F].

    Raises:
        SearchError: as ``AccuracyPredictor.fit``.
        ArchError: a network of another space.
    """
    check_measured(archs, accuracies)
    known, x_MF = _seen(space, archs)
    return Ensemble.fit(known.features, x_MF, accuracies), known, x_MF


def _seen(space: Space, archs: Sequence[Arch]) -> tuple[FeatureMap, Floats]:
    """The feature map of the predictable part of a space, and the features of ``archs``; [M, F].

    Accuracies at one resolution or aspect ratio tell nothing about others, so the part has only the measured range. A space with fewer
    choices is replaced by its whole space, because a file can name only that.
    """
    space = whole_of(space)
    rows_MC = space.encode_all(archs)
    measured = sorted(set(rows_MC[:, 0].tolist()))
    aspects = [aspect(space.resolutions[index]) for index in measured]
    between = space.resolutions[measured[0] : measured[-1] + 1]
    known = space.restrict(resolution=[each for each in between if min(aspects) <= aspect(each) <= max(aspects)])
    of_known = feature_map(known)
    return of_known, of_known(space.rows_in(known, rows_MC))


def _check_wanted(path: str | os.PathLike[str], info: PredictorInfo, space: Space) -> None:
    if space.name != info.space:
        raise SpaceError(
            f"a predictor knows the networks of one space, but '{path}' is of {info.space} and {space.name} is asked for; "
            f"fit one with: {_MADE_BY}"
        )
    if space.num_classes != info.num_classes:
        raise SpaceError(
            f"a predictor knows networks of one number of classes, but '{path}' is of {info.num_classes} and {space.num_classes} "
            f"are asked for; fit one with: {_MADE_BY}"
        )
