"""Do subnets keep their accuracy? Subnets of one supernet, beside the same networks trained alone.

For networks across the space: the accuracy straight from the supernet (batch norms calibrated), after a short distilled fine-tuning, and
of the same network trained alone with the same recipe and as many epochs as all phases of the supernet together. Supernets are trained by
the recipe's progressive shrinking and, as an ablation, without it: all networks from the first step on, in as many epochs.

The work is cut into tasks whose results lie in a folder, so several processes can share it and a stopped one goes on:

    python benchmarks/subnet_accuracy.py --train train.parquet --test test.parquet --work WORK &
    python benchmarks/subnet_accuracy.py --train train.parquet --test test.parquet --work WORK &
    python benchmarks/subnet_accuracy.py --work WORK --out benchmarks/results/subnet_accuracy.json    # when both have ended
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch import nn

from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.calibrate import calibrate
from ofa.cost import macs
from ofa.data import Splits
from ofa.families import lower
from ofa.specialize import specialize
from ofa.training import Phase, Recipe, evaluate, load_run, save_run, train
from ofa.training.checkpoint import WEIGHTS
from ofa.training.memory import keep_freed_memory
from ofa.training.presets import load_recipe
from ofa.training.sampling import make_sampler
from ofa.training.single import FineTuning, train_network

NETWORKS, BUDGETS, SMALL, SEEDS = 12, 5, 3, 3
LARGER = range(6, NETWORKS)
"""Networks that the higher learning rate may be too high for, when they are trained alone."""
METHODS, BEST = ("shrinking", "joint"), "joint"
"""How supernets are trained, and which of the ways is repeated with other seeds and fine-tuned from."""
IMAGES, SETTINGS = 50_000, "settings.txt"
"""Images of CIFAR-10's training part; what the tasks' arguments are kept in, as JSON, apart from the results beside it."""
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="Parquet file or folder to train on")
    parser.add_argument("--test", help="the same to test on")
    parser.add_argument("--recipe", default="small-budget")
    parser.add_argument("--images", type=int, default=1200, help="images that are trained on, of CIFAR-10's 50,000")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.16, help="learning rate of networks trained alone")
    parser.add_argument("--second-rate", type=float, default=0.08, help="the larger ones are trained with this too; the better counts")
    parser.add_argument("--supernet-rate", type=float, default=0.32, help="the mean gradient of several subnets bears a higher one")
    parser.add_argument("--subnets", type=int, default=3, help="a step of the supernet")
    parser.add_argument("--distillation-weight", type=float, default=0.0, help="of the largest network's answers, in the supernet's steps")
    parser.add_argument("--fine-tuning-epochs", type=int, default=3)
    parser.add_argument("--fine-tuning-rate", type=float, default=0.02)
    parser.add_argument("--test-images", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="tasks whose names have this within them, such as supernet-shrinking")
    parser.add_argument("--work", type=Path, required=True, help="folder of the tasks' results")
    parser.add_argument("--out", type=Path, help="write the summary of the results that are there")
    parser.add_argument("--picture", type=Path, help="and draw it")
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        report = summary(arguments.work)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
        if arguments.picture:
            draw(report, arguments.picture)
        return
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in vars(arguments).items() if name not in ("work", "out", "picture", "only")}
    settings = arguments.work / SETTINGS
    if not settings.exists():
        settings.write_text(json.dumps(own))
    if json.loads(settings.read_text()) != own:
        raise SystemExit(f"the tasks in '{arguments.work}' must have one set of arguments, but {settings} has others; take a new folder")
    for name, task in Work(own, arguments.work).tasks():
        if arguments.only in name:
            run_once(arguments.work, name, task)


class Work:
    """The tasks, in the order in which they matter."""

    def __init__(self, settings: Mapping[str, Any], work: Path) -> None:
        self._settings, self._work = settings, work

    def tasks(self) -> Iterator[tuple[str, Callable[[], Report | None]]]:
        for method in METHODS:
            yield f"supernet-{method}-0", lambda method=method: self.supernet(method, 0)
        for number in range(NETWORKS):
            yield f"alone-{number:02d}-0", lambda number=number: self.alone(number, 0)
        for number in LARGER:
            yield f"alone-{number:02d}-0-second", lambda number=number: self.alone(number, 0, "second_rate")
        for seed in range(1, SEEDS):
            yield f"supernet-{BEST}-{seed}", lambda seed=seed: self.supernet(BEST, seed)
            for number in range(SMALL):
                yield f"alone-{number:02d}-{seed}", lambda number=number, seed=seed: self.alone(number, seed)
        for number in self.budgets():
            yield f"tuned-{BEST}-{number:02d}-0", lambda number=number: self.tuned(number, 0)
        for seed in range(1, SEEDS):
            for number in range(SMALL):
                yield f"tuned-{BEST}-{number:02d}-{seed}", lambda number=number, seed=seed: self.tuned(number, seed)

    @staticmethod
    def budgets() -> list[int]:
        """The smallest networks, and others at even distances up to the largest."""
        return sorted({*range(SMALL), *(round(i * (NETWORKS - 1) / (BUDGETS - 1)) for i in range(BUDGETS))})

    def recipe(self, seed: int) -> Recipe:
        """The recipe of all tasks; images and first weights by its seed, the held-out images too."""
        settings = self._settings
        share = settings["images"] / IMAGES
        return load_recipe(
            settings["recipe"],
            (
                f"data={settings['train']}",
                f"test_data={settings['test']}",
                f"fractions=[{share}, {share / 10}, 0]",
                f"batch_size={settings['batch_size']}",
                f"progressive_shrinking.epochs={settings['epochs']}",
                f"progressive_shrinking.learning_rate={settings['rate']}",
                f"progressive_shrinking.shrinking_learning_rate={settings['supernet_rate']}",
                f"progressive_shrinking.subnets_per_step={settings['subnets']}",
                f"progressive_shrinking.distillation_weight={settings['distillation_weight']}",
                "evaluate_every=0",
                f"seed={seed}",
            ),
        )

    @cached_property
    def splits(self) -> Splits:
        """The images, cut by seed 0 whatever the task; of the test part the first ones."""
        splits = self.recipe(0).load_splits()
        return splits._replace(test=splits.test.subset(torch.arange(min(self._settings["test_images"], len(splits.test)))))

    def archs(self) -> list[Arch]:
        """Networks from the smallest to the largest by MACs, those between drawn from strata of it, all at the largest resolution."""
        recipe = self.recipe(0)
        space = recipe.get_space(10)
        at_largest = space.restrict(resolution=space.resolutions[-1:])
        rng = np.random.default_rng(0)
        sampler = make_sampler("strata", space)
        drawn = {arch for _ in range(4) for arch in sampler.draw(at_largest, 8, rng)}
        between = sorted(drawn, key=lambda arch: macs(lower(space, arch)))
        picked = [between[round(i * (len(between) - 1) / (NETWORKS - 3))] for i in range(NETWORKS - 2)]
        return [at_largest.smallest(), *picked, at_largest.largest()]

    def supernet(self, method: str, seed: int) -> Report:
        recipe = self.recipe(seed)
        if method == "joint":
            recipe = replace(recipe, phases=(joint_phase(recipe),))
        splits, folder = self.splits, self._work / f"{method}-{seed}.run"
        if (folder / WEIGHTS).exists():  # trained by a process that was stopped while it judged
            run = load_run(folder)
            supernet, metrics = run.supernet, run.metrics
        else:
            supernet = recipe.build_supernet(splits.train.num_classes)
            metrics = tuple(train(supernet, recipe, splits.train))
            save_run(folder, supernet, recipe, metrics)
        duration = sum(epoch.duration_s for epoch in metrics)
        accuracies = [judge(supernet.extract(arch), arch, splits) for arch in self.archs()]
        return {
            "kind": "supernet",
            "method": method,
            "seed": seed,
            "duration_s": duration,
            "accuracy": accuracies,
            "recipe": recipe.to_toml(),
        }

    def alone(self, number: int, seed: int, rate: str = "rate") -> Report:
        recipe, arch, splits = self.recipe(seed), self.archs()[number], self.splits
        space = recipe.get_space(splits.train.num_classes)
        network = build_network(lower(space, arch), generator=recipe.generator("weights"))
        settings = replace(FineTuning.like(recipe, learning_rate=self._settings[rate]), warmup_epochs=recipe.phases[0].warmup_epochs)
        started = time.perf_counter()
        train_network(
            network,
            splits.train,
            resolution=arch.resolution,
            epochs=sum(phase.epochs for phase in recipe.phases),
            generator=recipe.generator("specialization"),
            settings=settings,
        )
        duration = time.perf_counter() - started
        accuracy = judge(network, arch, splits)
        return {"kind": "alone", "network": number, "seed": seed, "rate": rate, "duration_s": duration, "accuracy": accuracy}

    def tuned(self, number: int, seed: int) -> Report | None:
        folder = self._work / f"{BEST}-{seed}.run"
        if not (folder / WEIGHTS).exists():
            return None
        run, arch, splits = load_run(folder), self.archs()[number], self.splits
        settings = FineTuning.like(run.recipe, learning_rate=self._settings["fine_tuning_rate"])
        done = specialize(
            run.supernet,
            arch,
            splits.train,
            splits.test,
            epochs=self._settings["fine_tuning_epochs"],
            generator=run.recipe.generator("specialization"),
            settings=settings,
        )
        return {"kind": "tuned", "network": number, "seed": seed, "duration_s": done.metrics.duration_s, "accuracy": done.metrics.accuracy}


def joint_phase(recipe: Recipe) -> Phase:
    """All networks from the first step on: the last phase of shrinking, with its subnets a step, for all the epochs."""
    first, last = recipe.phases[0], recipe.phases[-1]
    epochs = sum(phase.epochs for phase in recipe.phases)
    return replace(last, name="joint", epochs=epochs, warmup_epochs=first.warmup_epochs, reorder_channels=False)


def judge(network: nn.Module, arch: Arch, splits: Splits) -> float:
    """Share of the test images that a network gets right once its batch norms are calibrated, as all networks are here."""
    calibrate(network, splits.train, resolution=arch.resolution)
    return evaluate(network, splits.test, resolution=arch.resolution)


def run_once(work: Path, name: str, task: Callable[[], Report | None]) -> None:
    """Run a task unless it is done or another process has it."""
    result, claim = work / f"{name}.json", work / f"{name}.claim"
    if result.exists():
        return
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    try:
        report = task()
        if report is not None:
            result.write_text(json.dumps({"date_utc": describe_machine()["date_utc"], **report}) + "\n")
            print(name, {key: value for key, value in report.items() if key != "recipe"}, flush=True)
    finally:
        claim.unlink()


def summary(work: Path) -> Report:
    """The table: a row a network, and what follows from all of them."""
    reports = [json.loads(path.read_text()) for path in sorted(work.glob("*.json"))]
    supernets = [report for report in reports if report["kind"] == "supernet"]
    settings = json.loads((work / SETTINGS).read_text())
    tasks = Work(settings, work)
    recipe, archs = tasks.recipe(0), tasks.archs()
    space = recipe.get_space(10)
    rows = []
    for number, arch in enumerate(archs):
        row: Report = {"network": number, "macs": macs(lower(space, arch)), "arch": arch.to_json()}
        for method in METHODS:
            row[method] = spread([report["accuracy"][number] for report in supernets if report["method"] == method])
        of_network = [report for report in reports if report.get("network") == number]
        row["tuned"] = spread([report["accuracy"] for report in of_network if report["kind"] == "tuned"])
        # In favour of the twins: each has the better of its rates, going by the test images themselves.
        for rate in ("rate", "second_rate"):
            row[f"alone_{rate}"] = spread([report["accuracy"] for report in of_network if report.get("rate") == rate])
        row["alone"] = max(filter(None, (row["alone_rate"], row["alone_second_rate"])), key=lambda found: found["mean"], default=None)
        rows.append(row)
    widest = max(row[kind]["high"] - row[kind]["low"] for row in rows for kind in (BEST, "alone") if row[kind]["seeds"] == SEEDS)
    return {
        "machine": describe_machine(),
        "settings": {name: Path(value).name if name in ("train", "test") else value for name, value in settings.items()},
        "recipes": {report["method"]: without_folders(report["recipe"], settings) for report in supernets if report["seed"] == 0},
        "durations_s": {label(report): round(report["duration_s"]) for report in reports},
        "kendall_supernet_alone": {method: rank_correlation(rows, method) for method in METHODS},
        "spread_over_seeds": widest,
        "below_alone_by_more_than_spread": {kind: below(rows, kind, widest) for kind in (*METHODS, "tuned")},
        "rows": rows,
    }


def draw(report: Report, path: Path) -> None:
    """Accuracy against MACs: from the supernet, fine-tuned, and trained alone, with bars from the least to the most of the seeds."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = {BEST: ("straight from the supernet", "o", "tab:blue"), "tuned": ("after a short fine-tuning", "^", "tab:green")}
    for number, (kind, (name, marker, colour)) in enumerate({**kinds, "alone": ("trained alone", "s", "tab:orange")}.items()):
        rows = [row for row in report["rows"] if row[kind]]
        shift = 0.12e6 * (number - 1)  # so that the bars stand side by side
        mean = [100 * row[kind]["mean"] for row in rows]
        bars = [[100 * abs(row[kind]["mean"] - row[kind][end]) for row in rows] for end in ("low", "high")]
        x = [(row["macs"] + shift) / 1e6 for row in rows]
        axes.errorbar(x, mean, bars, fmt=marker, color=colour, label=name, capsize=2, markersize=5, linewidth=1)
    axes.set_xlabel("MMACs")
    axes.set_ylabel("accuracy on test images (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def without_folders(recipe: str, settings: Mapping[str, Any]) -> str:
    """A recipe that names its files and not where they lay."""
    for name in ("train", "test"):
        recipe = recipe.replace(settings[name], Path(settings[name]).name)
    return recipe


def below(rows: list[Report], kind: str, spread: float) -> list[int]:
    """The networks that are worse than their twins trained alone by more than the widest spread over seeds that was seen."""
    return [row["network"] for row in rows if row[kind] and row[kind]["mean"] < row["alone"]["mean"] - spread]


def rank_correlation(rows: list[Report], method: str) -> float | None:
    """Kendall's tau between the accuracies from the supernet and alone; None where fewer than three networks have both."""
    pairs = [(row[method]["mean"], row["alone"]["mean"]) for row in rows if row["alone"] and row[method]]
    return float(kendalltau(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None


def label(report: Report) -> str:
    return "-".join(str(report[key]) for key in ("kind", "method", "network", "seed", "rate") if key in report)


def spread(values: list[float]) -> Report | None:
    """Mean, least and most over the seeds; None without any."""
    if not values:
        return None
    return {"mean": statistics.fmean(values), "low": min(values), "high": max(values), "seeds": len(values)}


if __name__ == "__main__":
    main()
