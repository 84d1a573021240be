"""An accuracy predictor: a regression from a network's genes and MACs to its accuracy, which says how far it can be trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from ofa.arch import Arch
from ofa.errors import FileError, SearchError, SpaceError
from ofa.families import get_space
from ofa.space import Space
from search.features import features, sample_stratified
from search.pareto import Floats
from search.regression import cross_validate, refit
from search.store import read_table, write_table

__all__ = ["AccuracyPredictor", "read_results", "sample_stratified"]

_SCHEMA = 1
_FOLDS = 5
_LEAST = 10
"""Fewest networks to fit to: two a fold."""


class AccuracyPredictor:
    """Predicts accuracies of the networks of one space; make one with ``fit`` or ``load``. It is an ``AccuracySource``.

    Attributes:
        space: the space of its networks.
        model: the regression that cross-validation chose.
        kendall_tau: rank correlation of predicted and given accuracies on networks that were not fitted to (-1..1).
        rmse: root mean squared error of the accuracy on the same networks (0..1).
    """

    def __init__(self, space: Space, archs: Sequence[Arch], accuracies: Floats, metadata: Mapping[str, Any]) -> None:
        self.space = space
        self.model = str(metadata["model"])
        self.kendall_tau = float(metadata["kendall_tau"])
        self.rmse = float(metadata["rmse"])
        self._archs = tuple(archs)
        self._accuracies = accuracies
        # Fitting again takes a fraction of a second and is deterministic, so no fitted object has to be stored or trusted.
        self._regression = refit(self.model, metadata["parameters"], features(space, archs), accuracies)

    @classmethod
    def fit(cls, space: Space, archs: Sequence[Arch], accuracies: Sequence[float] | Floats, rng: np.random.Generator) -> Self:
        """Fit the regression that predicts best in cross-validation.

        Args:
            space: what ``archs`` are points of.
            archs: networks, such as those of ``sample_stratified``.
            accuracies: their accuracies (0..1).
            rng: deals the networks out to the folds.

        Raises:
            SearchError: too few networks, accuracies that are no numbers in 0..1, or all of them equal.
            ArchError: a network of another space.
        """
        values = np.asarray(accuracies, dtype=np.float64)
        _check_data(archs, values)
        x_NF = features(space, archs)
        unseen = cross_validate(x_NF, values, _FOLDS, rng)
        errors = {candidate: float(np.sqrt(np.mean((predicted - values) ** 2))) for candidate, predicted in unseen.items()}
        best = min(errors, key=lambda candidate: errors[candidate])
        metadata = {
            "model": best.name,
            "parameters": best.fit(x_NF, values).parameters,
            "kendall_tau": _kendall_tau(unseen[best], values),
            "rmse": errors[best],
        }
        return cls(space, archs, values, metadata)

    @property
    def space_name(self) -> str:
        """The space whose networks it knows."""
        return self.space.name

    @property
    def networks(self) -> int:
        """How many networks it is fitted to."""
        return len(self._archs)

    @property
    def provenance(self) -> dict[str, Any]:
        """What it is and how good, as JSON values."""
        known = {"model": self.model, "networks": self.networks, "kendall_tau": self.kendall_tau, "rmse": self.rmse}
        return {"source": "predicted", **known}

    def __call__(self, archs: Sequence[Arch], /) -> Floats:
        """The expected accuracies (0..1) of ``archs``; [N].

        Raises:
            SpaceError: a network of another space.
        """
        return self.predict(archs)[0]

    def predict(self, archs: Sequence[Arch]) -> tuple[Floats, Floats]:
        """The expected accuracies (0..1) of ``archs`` and their standard deviations; [N] each.

        Where the regression knows no deviation of its own, it is ``rmse`` for every network.

        Raises:
            SpaceError: a network of another space.
        """
        for arch in archs:
            if arch.space != self.space.name:
                raise SpaceError(
                    f"a predictor knows the networks of one space, but this one is of {self.space.name} and got a network of {arch.space}; "
                    f"fit one with: ofa predictor fit"
                )
        if not archs:
            return np.empty(0), np.empty(0)
        mean, std = self._regression.predict(features(self.space, archs))
        return np.clip(mean, 0.0, 1.0), np.full(len(archs), self.rmse) if std is None else std

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the data and what was found in fitting as a Parquet file."""
        rows = pd.DataFrame({"arch": [json.dumps(arch.to_json()) for arch in self._archs], "accuracy": self._accuracies})
        metadata = {
            "space": self.space.name,
            "num_classes": self.space.num_classes,
            "model": self.model,
            "parameters": self._regression.parameters,
            "kendall_tau": self.kendall_tau,
            "rmse": self.rmse,
        }
        write_table(rows, metadata, path, kind="predictor", schema=_SCHEMA)

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: Space | None = None) -> Self:
        """Read a predictor and fit it again to its data.

        Args:
            path: what ``save`` wrote.
            space: the space that it is wanted for; by default the one it names.

        Raises:
            FileError: the file is absent, damaged, no predictor, or of a newer schema.
            SpaceError: it is of another space than ``space``.
        """
        made_by = "ofa predictor fit"
        rows, metadata = read_table(path, kind="predictor", schema=_SCHEMA, columns=("arch", "accuracy"), made_by=made_by)
        if space is not None and space.name != metadata["space"]:
            raise SpaceError(
                f"a predictor knows the networks of one space, but '{path}' is of {metadata['space']} and {space.name} is asked for; "
                f"fit one with: {made_by}"
            )
        own = get_space(metadata["space"], metadata["num_classes"])
        try:
            archs = [Arch.from_json(json.loads(text)) for text in rows["arch"]]
            return cls(own, archs, rows["accuracy"].to_numpy(dtype=np.float64), metadata)
        except (KeyError, ValueError) as error:
            raise FileError(f"'{path}' must be a whole predictor, but reading it met: {error}; make it again with: {made_by}") from error


def read_results(path: str | os.PathLike[str]) -> tuple[list[Arch], Floats]:
    """Networks and their accuracies (0..1) from a CSV file with the columns ``arch`` (JSON) and ``accuracy``.

    Raises:
        FileError: the file is absent, or a column or a value is not what it should be.
        ArchError: an arch is not one.
    """
    rule = f"'{path}' must be a CSV file with the columns arch (JSON) and accuracy (0..1)"
    try:
        rows = pd.read_csv(path)
        archs = [Arch.from_json(json.loads(text)) for text in rows["arch"]]
        return archs, rows["accuracy"].to_numpy(dtype=np.float64)
    except OSError as error:
        raise FileError(f"{rule}, but {(error.strerror or str(error)).lower()}; check the path") from error
    except KeyError as error:
        raise FileError(f"{rule}, but has no column {error}; add it") from error
    except (TypeError, ValueError) as error:
        raise FileError(f"{rule}, but reading it met: {error}; correct it") from error


def _check_data(archs: Sequence[Arch], accuracies: Floats) -> None:
    if accuracies.shape != (len(archs),):
        raise SearchError(f"each network needs one accuracy, but {len(archs)} networks come with {accuracies.shape}; give as many of both")
    if len(archs) < _LEAST:
        raise SearchError(f"a predictor needs at least {_LEAST} networks, but got {len(archs)}; measure more, 100 is a good start")
    wrong = accuracies[~((accuracies >= 0) & (accuracies <= 1))]
    if len(wrong):
        raise SearchError(f"accuracies must be numbers in 0..1, but one is {wrong[0]}; divide percentages by 100")
    if np.ptp(accuracies) == 0:
        raise SearchError(
            f"a predictor learns from differences, but all {len(archs)} networks have accuracy {accuracies[0]}; train the supernet longer"
        )


def _kendall_tau(predicted: Floats, given: Floats) -> float:
    """Kendall's tau-b; 0 where all predictions are equal, for they rank nothing."""
    return 0.0 if np.ptp(predicted) == 0 else float(kendalltau(predicted, given).statistic)
