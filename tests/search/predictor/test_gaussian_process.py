from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from ofa.arrays import Floats
from search.predictor.gaussian_process import GaussianProcess, Kernel, Linear, Rational, most_likely


def kernel() -> Kernel:
    return Kernel(
        [Linear(np.array([0, 1])), Rational(np.array([1, 2, 3]), np.array([0, 1, 1])), Rational(np.array([0, 3]), np.array([0, 0]))]
    )


def data(count: int = 40, seed: int = 0, noise: float = 0.1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    x_MF = rng.normal(size=(count, 4))
    return x_MF, x_MF[:, 0] + np.sin(x_MF[:, 1]) + noise * rng.normal(size=count)


def test_the_gradient_is_that_of_the_loss() -> None:
    x_MF, y_M = data()
    for seed in range(3):
        theta = kernel().start + 0.5 * np.random.default_rng(seed).normal(size=len(kernel().start))
        found = kernel().loss(theta, x_MF, y_M)[1]
        numeric = approx_fprime(theta, lambda each: kernel().loss(each, x_MF, y_M)[0], 1e-6)
        assert found == pytest.approx(numeric, abs=1e-4, rel=1e-4)


def test_a_kernel_that_cannot_be_factorized_is_unlikely() -> None:
    x_MF, y_M = data()
    theta = kernel().start
    theta[0] = 80.0  # beside a plane so steep, rounding is more than all else
    value, gradient = kernel().loss(theta, x_MF, y_M)
    assert value > 1e9
    assert not gradient.any()


def test_parameters_become_more_likely() -> None:
    x_MF, y_M = data()
    theta = most_likely(kernel(), x_MF, y_M)
    assert kernel().loss(theta, x_MF, y_M)[0] < kernel().loss(kernel().start, x_MF, y_M)[0]
    assert np.array_equal(theta, most_likely(kernel(), x_MF, y_M))


def test_predictions_are_those_of_the_textbook() -> None:
    x_MF, y_M = data()
    theta = most_likely(kernel(), x_MF, y_M)
    process = GaussianProcess(kernel(), theta, x_MF, y_M)
    x_NF, _ = data(1100, seed=1)  # more than are predicted at a time
    k_MM = kernel().matrix(theta, x_MF, x_MF) + kernel().noise(theta) * np.eye(len(x_MF))
    k_NM = kernel().matrix(theta, x_NF, x_MF)
    own_N = np.array([kernel().matrix(theta, row[None], row[None])[0, 0] for row in x_NF])
    variance_N = own_N - np.einsum("nm,mn->n", k_NM, np.linalg.solve(k_MM, k_NM.T)) + kernel().noise(theta)
    assert process.mean(x_NF) == pytest.approx(k_NM @ np.linalg.solve(k_MM, y_M))
    assert process.deviation(x_NF) == pytest.approx(np.sqrt(variance_N))


def test_left_out_rows_are_predicted_as_by_a_process_without_them() -> None:
    x_MF, y_M = data()
    theta = most_likely(kernel(), x_MF, y_M)
    means, deviations = GaussianProcess(kernel(), theta, x_MF, y_M).left_out()
    for row in (0, 17):
        others = np.arange(len(y_M)) != row
        without = GaussianProcess(kernel(), theta, x_MF[others], y_M[others])
        assert means[row] == pytest.approx(without.mean(x_MF[[row]])[0])
        assert deviations[row] == pytest.approx(without.deviation(x_MF[[row]])[0])


def test_it_learns_what_there_is_and_how_much_is_noise() -> None:
    x_MF, y_M = data(150)
    theta = most_likely(kernel(), x_MF, y_M)
    x_NF, exact_N = data(200, seed=1, noise=0.0)
    errors = GaussianProcess(kernel(), theta, x_MF, y_M).mean(x_NF) - exact_N
    assert np.sqrt(np.mean(errors**2)) < 0.1
    assert np.sqrt(kernel().noise(theta)) == pytest.approx(0.1, rel=0.3)
