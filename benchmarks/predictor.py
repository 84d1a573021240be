"""How good the accuracy predictor is on published measurements, whether active rounds help, and how fast it answers.

    python benchmarks/predictor.py --data ofa_mbv3_w1.0_imagenet_top1.csv --mit-predictor ofa_acc_predictor.pth --out results/predictor.json

`--data` is the file of 1,000 subnets of MIT's supernet of width 1.0 with their ImageNet accuracy (IntelLabs/DyNAS-T), not part of this
project, and so is MIT's predictor. What is judged:

- cross-validation in 10 folds with several seeds: the predictor, its own cross-validation included, sees nothing of the networks left out;
- 50, 100 and 300 random networks, judged on all others; beside what the predictor states of itself;
- the same for ridge and for a Gaussian process with one length scale, both on one-hot genes and the logarithm of MACs;
- active rounds against a stratified sample of as many networks, with truths that can be asked for any network: the ensemble fitted to all
  1,000, and MIT's perceptron, both with noise. For 20 budgets of MACs the network that the predictor holds best is looked for, as a search
  does, and asked for its true accuracy. The truth's own best are the reference.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during
from scipy.stats import kendalltau
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.families import get_space
from ofa.interop import mit
from ofa.space import Space
from search.predictor.accuracy_predictor import AccuracyPredictor, fit_ensemble
from search.predictor.active_learning import fit_actively
from search.predictor.csv_results import read_results
from search.predictor.features import features, log_macs
from search.predictor.sampling import sample_stratified

SPACE = get_space("ofa-mbv3-w1.0")
FOLDS = 10
Score = Callable[[Rows], Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mit-predictor", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="cross-validations")
    parser.add_argument("--draws", type=int, default=20, help="samples of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 300])
    parser.add_argument("--active-nets", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--active-seeds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=9, help="timings")
    parser.add_argument("--only", nargs="+", help="speed, mit_predictor, samples, cross_validation, active; all by default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    archs, accuracies = read_results(arguments.data, SPACE)
    with threadpool_limits(1), others_during() as others:
        figures: dict[str, Any] = {"networks": len(archs)}
        for name, part in parts(archs, accuracies, arguments).items():
            if arguments.only and name not in arguments.only:
                continue
            figures[name] = part()
            print(name, json.dumps(figures[name], indent=1), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"machine": describe_machine(), "threads": 1, "other_load_cores": others.cores, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def parts(archs: list[Arch], accuracies: Floats, arguments: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    truths = {"ensemble fitted to all": lambda: ensemble_truth(archs, accuracies)}
    found: dict[str, Callable[[], Any]] = {"speed": lambda: speeds(archs, accuracies, arguments.repeats)}
    if arguments.mit_predictor:
        truths["MIT's perceptron"] = lambda: perceptron_truth(arguments.mit_predictor)
        found["mit_predictor"] = lambda: mit_figures(arguments.mit_predictor, archs, accuracies)
    found["samples"] = lambda: [samples(archs, accuracies, size, arguments.draws) for size in arguments.sizes]
    found["cross_validation"] = lambda: cross_validation(archs, accuracies, arguments.seeds)
    found["active"] = lambda: [
        {"truth": name, **active(*truth(), nets, arguments.active_seeds)}
        for name, truth in truths.items()
        for nets in arguments.active_nets
    ]
    return found


# -- published measurements ---------------------------------------------------------------------------------------------------------------


def cross_validation(archs: list[Arch], accuracies: Floats, seeds: int) -> dict[str, Any]:
    """Each network predicted by a predictor that is fitted to nine tenths of the others."""
    rows, x_NF = [], features(SPACE, archs)
    others: dict[str, list[dict[str, float]]] = {name: [] for name in rivals()}
    for seed in range(seeds):
        fold_N = np.random.default_rng(seed).permutation(len(archs)) % FOLDS
        predicted_N, low_N, high_N = (np.empty(len(archs)) for _ in range(3))
        rival = {name: np.empty(len(archs)) for name in others}
        for fold in range(FOLDS):
            known, out = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
            predictor = fitted(archs, accuracies, known, seed)
            predicted_N[out] = predictor([archs[i] for i in out])
            low_N[out], high_N[out] = predictor.interval([archs[i] for i in out])
            for name, make in rivals().items() if seed == 0 else ():
                rival[name][out] = make().fit(x_NF[known], accuracies[known]).predict(x_NF[out])
        rows.append({**quality(predicted_N, accuracies), **inside(low_N, high_N, accuracies)})
        for name in others if seed == 0 else ():
            others[name].append(quality(rival[name], accuracies))
    return {"folds": FOLDS, "seeds": seeds, **summary(rows), "rivals_of_one_seed": {name: summary(each) for name, each in others.items()}}


def samples(archs: list[Arch], accuracies: Floats, size: int, draws: int) -> dict[str, Any]:
    """Fitted to random networks, judged on all others."""
    rows, stated, seconds, x_NF = [], [], [], features(SPACE, archs)
    others: dict[str, list[dict[str, float]]] = {name: [] for name in rivals()}
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(archs))
        known, out = order[:size], order[size:]
        start = time.perf_counter()
        predictor = fitted(archs, accuracies, known, seed)
        seconds.append(time.perf_counter() - start)
        unseen = [archs[i] for i in out]
        rows.append({**quality(predictor(unseen), accuracies[out]), **inside(*predictor.interval(unseen), accuracies[out])})
        trust = predictor.trust
        stated.append({"kendall_tau": trust.kendall_tau, "rmse_points": 100 * trust.rmse, "coverage": trust.coverage})
        for name, make in rivals().items():
            others[name].append(quality(make().fit(x_NF[known], accuracies[known]).predict(x_NF[out]), accuracies[out]))
    rival = {name: summary(each) for name, each in others.items()}
    return {
        "fitted_to": size,
        "draws": draws,
        "fit_s": float(np.median(seconds)),
        **summary(rows),
        "stated": summary(stated),
        "rivals": rival,
    }


def fitted(archs: list[Arch], accuracies: Floats, known: Rows, seed: int) -> AccuracyPredictor:
    return AccuracyPredictor.fit(SPACE, [archs[i] for i in known], accuracies[known], np.random.default_rng(seed))


def rivals() -> dict[str, Callable[[], Any]]:
    """What is usual: on standardized one-hot genes and the logarithm of MACs."""
    # About as far apart as standardized features are; the largest likelihood is sought from there.
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(13.0, (0.1, 1e4)) + WhiteKernel(0.1, (1e-5, 10.0))
    return {
        "ridge": lambda: make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 3, 9))),
        "one_gaussian_process": lambda: make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True)),
    }


def mit_figures(path: Path, archs: list[Arch], accuracies: Floats) -> dict[str, float]:
    """MIT's own predictor on the same networks, its mean error taken away."""
    predicted_N = mit.load_predictor(path, SPACE).predict(archs)
    error = float(np.mean(predicted_N - accuracies))
    return {**quality(predicted_N - error, accuracies), "mean_error_points": 100 * error}


def quality(predicted_N: Floats, measured_N: Floats) -> dict[str, float]:
    tau = float(kendalltau(predicted_N, measured_N).statistic)
    return {"kendall_tau": tau, "rmse_points": 100 * float(np.sqrt(np.mean((predicted_N - measured_N) ** 2)))}


def inside(low_N: Floats, high_N: Floats, measured_N: Floats) -> dict[str, float]:
    covered = float(np.mean((low_N <= measured_N) & (measured_N <= high_N)))
    return {"coverage": covered, "half_width_points": 50 * float(np.mean(high_N - low_N))}


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, least and most of each figure."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: {"mean": round(float(np.mean(c)), 4), "min": round(min(c), 4), "max": round(max(c), 4)} for name, c in columns.items()}


# -- active rounds ------------------------------------------------------------------------------------------------------------------------


def ensemble_truth(archs: list[Arch], accuracies: Floats) -> tuple[Space, Score, float]:
    ensemble, known, _ = fit_ensemble(SPACE, archs, accuracies)
    return known.space, lambda rows_NC: ensemble.expected(known(rows_NC)), 0.0003


def perceptron_truth(path: Path) -> tuple[Space, Score, float]:
    space = SPACE.restrict(resolution=[128, 144, 160, 176, 192, 208, 224])
    predictor = mit.load_predictor(path, space)
    return space, lambda rows_NC: predictor.predict_rows(rows_NC.astype(np.int64)), 0.0005


def active(space: Space, truth: Score, noise: float, nets: int, seeds: int) -> dict[str, Any]:
    """The same number of networks measured in rounds and all at once, for each seed."""
    low, high = log_macs(space, space.encode_all([space.smallest(), space.largest()]))
    limits = np.linspace(low + 0.1 * (high - low), high - 0.05 * (high - low), 20)
    reference_NC = best_rows(space, truth, limits, np.random.default_rng(0))
    near_NC = space.canonical(mutated(space, reference_NC, 2000, np.random.default_rng(1)))
    fair_NC = space.encode_all(sample_stratified(space, 1000, np.random.default_rng(2)))
    ways: dict[str, list[dict[str, float]]] = {"stratified": [], "active": []}
    for seed in range(seeds):
        for way, rounds in (("stratified", {"rounds": 0}), ("active", {})):
            noise_rng = np.random.default_rng(1000 + seed)

            def measure(asked: list[Arch], rng: np.random.Generator = noise_rng) -> Floats:
                return np.clip(truth(space.encode_all(asked)) + noise * rng.standard_normal(len(asked)), 0, 1)

            predictor = fit_actively(space, measure, nets=nets, rng=np.random.default_rng(seed), **rounds)
            chosen_NC = best_rows(space, of_rows(predictor, space), limits, np.random.default_rng(3))
            true_N, own_NC = truth(chosen_NC), space.rows_in(predictor.space, chosen_NC)
            ways[way].append(
                {
                    "below_the_best_points": 100 * float(np.mean(truth(reference_NC) - true_N)),
                    "too_high_points": 100 * float(np.mean(predictor.of_rows(own_NC) - true_N)),
                    "coverage_of_chosen": inside(*predictor.interval_of_rows(own_NC), true_N)["coverage"],
                    "kendall_tau_near_the_front": quality(of_rows(predictor, space)(near_NC), truth(near_NC))["kendall_tau"],
                    **{f"{name}_everywhere": value for name, value in quality(of_rows(predictor, space)(fair_NC), truth(fair_NC)).items()},
                }
            )
    return {"nets": nets, "seeds": seeds, "noise_points": 100 * noise, **{way: summary(rows) for way, rows in ways.items()}}


def of_rows(predictor: AccuracyPredictor, space: Space) -> Score:
    return lambda rows_NC: predictor.of_rows(space.rows_in(predictor.space, rows_NC))


def best_rows(space: Space, score: Score, limits: Floats, rng: np.random.Generator, generations: int = 25) -> Rows:
    """The row of the highest score within each limit of log MACs, found by evolution; a row for each limit."""
    rows_NC = np.concatenate([space.sample_rows(3000, rng), space.sample_leaning_rows(3000, rng), space.encode_all([space.smallest()])])
    for generation in range(generations):
        rows_NC = np.unique(rows_NC, axis=0)
        size_N, score_N = log_macs(space, rows_NC), score(rows_NC)
        # The best ten within each limit are the parents.
        parents = [np.flatnonzero(size_N <= limit)[np.argsort(-score_N[size_N <= limit], kind="stable")[:10]] for limit in limits]
        if generation < generations - 1:
            best_NC = rows_NC[np.unique(np.concatenate(parents))]
            rows_NC = np.concatenate([best_NC, mutated(space, best_NC, 6000, rng)])
    return rows_NC[[best[0] for best in parents]]


def mutated(space: Space, rows_NC: Rows, count: int, rng: np.random.Generator) -> Rows:
    parents_NC = rows_NC[rng.integers(len(rows_NC), size=count)]
    drawn_NC = rng.integers(space.cardinalities, size=parents_NC.shape, dtype=rows_NC.dtype)
    return space.canonical(np.where(rng.random(parents_NC.shape) < 0.06, drawn_NC, parents_NC))


# -- speed --------------------------------------------------------------------------------------------------------------------------------


def speeds(archs: list[Arch], accuracies: Floats, repeats: int, rows: int = 50_000, intervals: int = 5_000) -> list[dict[str, Any]]:
    """Networks a second in one thread, from encoded rows to accuracies."""
    found = []
    for size in (100, 300, 1000):
        chosen = np.random.default_rng(0).permutation(len(archs))[:size]
        start = time.perf_counter()
        predictor = fitted(archs, accuracies, chosen, 0)
        fit_s = time.perf_counter() - start
        rows_NC = predictor.space.sample_rows(rows, np.random.default_rng(0))
        predictor.of_rows(rows_NC[:10])
        seconds, interval_s = [], []
        for _ in range(repeats):
            start = time.perf_counter()
            predictor.of_rows(rows_NC)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            predictor.interval_of_rows(rows_NC[:intervals])
            interval_s.append(time.perf_counter() - start)
        by_second = {"median": np.median(seconds), "min": max(seconds), "max": min(seconds)}
        found.append(
            {
                "fitted_to": size,
                "fit_s": round(fit_s, 1),
                "networks_per_s": {name: round(rows / value) for name, value in by_second.items()},
                "intervals_per_s": round(intervals / float(np.median(interval_s))),
            }
        )
    return found


if __name__ == "__main__":
    main()
