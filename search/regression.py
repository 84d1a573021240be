"""The regressions that a predictor chooses among: each is fitted to arrays and can be rebuilt from a few numbers.

Shapes: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from search.pareto import Floats

__all__ = ["CANDIDATES", "Candidate", "Regression", "cross_validate", "refit"]

_ROWS_FOR_PARAMETERS = 400


class Regression(Protocol):
    """A fitted regression."""

    @property
    def parameters(self) -> tuple[float, ...]:
        """The numbers that, with the data, make the same regression again."""

    def predict(self, x_NF: Floats) -> tuple[Floats, Floats | None]:
        """The expected values [N], and their standard deviations [N] if the regression knows them."""


class _Ridge:
    """Linear in standardized features, with a quadratic penalty. Its parameter: the weight of the penalty."""

    def __init__(self, x_NF: Floats, y_N: Floats, parameters: Sequence[float]) -> None:
        self.parameters = tuple(parameters)
        self._scaler = StandardScaler().fit(x_NF)
        self._model = Ridge(alpha=self.parameters[0]).fit(self._scaler.transform(x_NF), y_N)

    def predict(self, x_NF: Floats) -> tuple[Floats, Floats | None]:
        return np.asarray(self._model.predict(self._scaler.transform(x_NF)), dtype=np.float64), None


class _GaussianProcess:
    """A Gaussian process over standardized features (Rasmussen and Williams, 2006, chapter 2 and section 5.4).

    Kernel: a squared exponential plus noise. Parameters: the logarithms of its variance, its length scale and the noise; where
    none are given, those of the largest marginal likelihood are sought.
    """

    def __init__(self, x_NF: Floats, y_N: Floats, parameters: Sequence[float] | None) -> None:
        self._scaler = StandardScaler().fit(x_NF)
        x_NF = self._scaler.transform(x_NF)
        # Standardized features lie about the square root of their number apart.
        kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(x_NF.shape[1] ** 0.5, (0.1, 1e4)) + WhiteKernel(0.1, (1e-5, 10.0))
        theta = self._most_likely(kernel, x_NF, y_N) if parameters is None else np.array(parameters)
        self.parameters = tuple(theta.tolist())
        self._model = self._fixed(kernel.clone_with_theta(theta)).fit(x_NF, y_N)

    def predict(self, x_NF: Floats) -> tuple[Floats, Floats | None]:
        mean, std = self._model.predict(self._scaler.transform(x_NF), return_std=True)
        return mean, std

    @classmethod
    def _most_likely(cls, kernel: Any, x_NF: Floats, y_N: Floats) -> Floats:
        # scikit-learn's own optimizer warns when a parameter ends at its bound, which is a fair answer here (no noise, say).
        # The cost is cubic in the rows, and some hundreds of them decide three numbers well.
        part = np.linspace(0, len(x_NF) - 1, min(len(x_NF), _ROWS_FOR_PARAMETERS)).astype(np.intp)
        model = cls._fixed(kernel).fit(x_NF[part], y_N[part])

        def loss(theta: Floats) -> tuple[float, Floats]:
            value, gradient = model.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
            return -float(value), -gradient

        return np.asarray(minimize(loss, kernel.theta, jac=True, method="L-BFGS-B", bounds=kernel.bounds).x, dtype=np.float64)

    @staticmethod
    def _fixed(kernel: Any) -> GaussianProcessRegressor:
        return GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)


@dataclass(frozen=True)
class Candidate:
    """A regression that may be chosen, with parameters that are given or, for None, found in fitting."""

    name: str
    parameters: tuple[float, ...] | None

    def fit(self, x_NF: Floats, y_N: Floats) -> Regression:
        """Fit it to rows and their values; deterministic."""
        return refit(self.name, self.parameters, x_NF, y_N)


CANDIDATES = (
    Candidate("gaussian process", None),
    Candidate("ridge", (1.0,)),
    Candidate("ridge", (10.0,)),
    Candidate("ridge", (30.0,)),
)
"""What a predictor chooses among."""


def refit(name: str, parameters: Sequence[float] | None, x_NF: Floats, y_N: Floats) -> Regression:
    """The regression of that name with these parameters."""
    if name == "ridge" and parameters is not None:
        return _Ridge(x_NF, y_N, parameters)
    if name == "gaussian process":
        return _GaussianProcess(x_NF, y_N, parameters)
    raise ValueError(f"no regression is called {name!r}")


def cross_validate(x_NF: Floats, y_N: Floats, folds: int, rng: np.random.Generator) -> Mapping[Candidate, Floats]:
    """What each candidate predicts for each row when it is fitted to the other folds only; [N] each."""
    fold_N = rng.permutation(len(y_N)) % folds
    predicted = {candidate: np.empty(len(y_N)) for candidate in CANDIDATES}
    for fold in range(folds):
        held_out = fold_N == fold
        for candidate, values in predicted.items():
            values[held_out] = candidate.fit(x_NF[~held_out], y_N[~held_out]).predict(x_NF[held_out])[0]
    return predicted
