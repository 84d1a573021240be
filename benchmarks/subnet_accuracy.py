"""Do subnets keep their accuracy? Subnets of one supernet, beside the same networks trained alone.

For networks across the space: the accuracy straight from the supernet (batch norms calibrated), after a short distilled fine-tuning, and
of the same network trained alone with the same recipe and as many epochs as all phases of the supernet together. Supernets are trained by
the recipe's progressive shrinking and, as an ablation, without it: all networks from the first step on, in as many epochs.

The work is cut into tasks whose results lie in a folder, so several processes can share it and a stopped one goes on:

    python benchmarks/subnet_accuracy.py --train train.parquet --test test.parquet --work WORK &
    python benchmarks/subnet_accuracy.py --train train.parquet --test test.parquet --work WORK &
    python benchmarks/subnet_accuracy.py --work WORK --out benchmarks/results/subnet_accuracy.json    # when both have ended

All training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from subnet_summary import BEST, METHODS, draw, summary
from tasks import SETTINGS, Report, judge, kept_settings, run_once, splits_in, train_alone
from torch import nn

from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.cost import macs
from ofa.data import ImageData, Splits
from ofa.families import lower
from ofa.training import (
    Phase,
    Recipe,
    TrainingState,
    append_metrics,
    begin_run,
    continue_run,
    load_run,
    save_run,
    save_state,
    train,
)
from ofa.training.checkpoint import CONFIG, WEIGHTS
from ofa.training.memory import keep_freed_memory
from ofa.training.presets import load_recipe
from ofa.training.sampling import make_sampler
from ofa.training.single import FineTuning
from ofa.training.specialization import specialize

NETWORKS, BUDGETS, SMALL, SEEDS = 12, 5, 3, 3
LARGER = range(6, NETWORKS)
"""Networks that the higher learning rate may be too high for, when they are trained alone."""
SECONDS_BETWEEN_STATES, SECONDS_BETWEEN_LOOKS = 30.0, 1.0


def arguments_of(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, of this process or as given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="Parquet file or folder to train on")
    parser.add_argument("--test", help="the same to test on")
    parser.add_argument("--recipe", default="small-budget")
    parser.add_argument("--space", default="ofa-mbv3-32px")
    parser.add_argument("--images", type=int, default=1200, help="images that are trained on; all leaves out one a class, which none may")
    parser.add_argument("--of", type=int, default=50_000, help="images that --train holds")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.16, help="learning rate of networks trained alone")
    parser.add_argument(
        "--second-rate", type=float, default=0.08, help="the larger ones are trained with this too; the better counts; 0: not"
    )
    parser.add_argument("--supernet-rate", type=float, default=0.32, help="the mean gradient of several subnets bears a higher one")
    parser.add_argument("--subnets", type=int, default=3, help="a step of the supernet")
    parser.add_argument("--distillation-weight", type=float, default=0.0, help="of the largest network's answers, in the supernet's steps")
    parser.add_argument("--fine-tuning-epochs", type=int, default=3)
    parser.add_argument("--fine-tuning-rate", type=float, default=0.02)
    parser.add_argument("--test-images", type=int, default=4000)
    parser.add_argument("--twins", type=int, default=NETWORKS, help=f"how many of the {NETWORKS} networks are trained alone too")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the best supernet and of the smallest networks")
    parser.add_argument("--tuned", choices=("some", "all"), default="some", help="which networks are fine-tuned")
    parser.add_argument("--device", default="cpu", help="where to train: cpu, cuda or cuda:1")
    parser.add_argument("--precision", default="float32", help="of the arithmetic of all training: float32, bfloat16 or float16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="tasks whose names have this within them, such as supernet-shrinking")
    parser.add_argument(
        "--wait", action="store_true", help="stay until all tasks are done, such as fine-tuning, which follows its supernet"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the tasks' results")
    parser.add_argument("--out", type=Path, help="write the summary of the results that are there")
    parser.add_argument("--picture", type=Path, help="and draw it")
    return parser.parse_args(words)


def main() -> None:
    arguments = arguments_of()
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        report = summary_of(arguments.work)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
        if arguments.picture:
            draw(report, arguments.picture)
        return
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    tasks = Work(kept_settings(arguments), arguments.work)
    while not run_all(arguments, tasks) and arguments.wait:
        time.sleep(SECONDS_BETWEEN_LOOKS)


def run_all(arguments: argparse.Namespace, tasks: Work) -> bool:
    """Run every task that can be run now; whether all are done."""
    done = [run_once(arguments.work, name, task) for name, task in tasks.tasks() if arguments.only in name]
    return all(done)


def summary_of(work: Path) -> Report:
    """The summary of the results in a folder."""
    settings = json.loads((work / SETTINGS).read_text())
    tasks = Work(settings, work)
    return summary(work, settings, tasks.recipe(0).get_space(10), tasks.archs)


class Work:
    """The tasks, in the order in which they matter."""

    def __init__(self, settings: Mapping[str, Any], work: Path) -> None:
        self._settings, self._work = settings, work
        self.device = str(settings["device"])

    def tasks(self) -> Iterator[tuple[str, Callable[[], Report | None]]]:
        seeds, twins = range(1, self._settings["seeds"]), spread_evenly(self._settings["twins"])
        small = range(SMALL)
        yield f"supernet-{BEST}-0", lambda: self.supernet(BEST, 0)
        for number in twins:
            yield f"alone-{number:02d}-0", lambda number=number: self.alone(number, 0)
        for method in METHODS[1:]:
            yield f"supernet-{method}-0", lambda method=method: self.supernet(method, 0)
        for number in sorted(set(twins) & set(LARGER)) if self._settings["second_rate"] else ():
            yield f"alone-{number:02d}-0-second", lambda number=number: self.alone(number, 0, "second_rate")
        for seed in seeds:
            yield f"supernet-{BEST}-{seed}", lambda seed=seed: self.supernet(BEST, seed)
            for number in small:
                yield f"alone-{number:02d}-{seed}", lambda number=number, seed=seed: self.alone(number, seed)
        for number in self.tuned_networks():
            yield f"tuned-{BEST}-{number:02d}-0", lambda number=number: self.tuned(number, 0)
        for seed in seeds:
            for number in small:
                yield f"tuned-{BEST}-{number:02d}-{seed}", lambda number=number, seed=seed: self.tuned(number, seed)

    def tuned_networks(self) -> list[int]:
        """All, or the smallest networks and others at even distances up to the largest."""
        return list(range(NETWORKS)) if self._settings["tuned"] == "all" else sorted({*range(SMALL), *spread_evenly(BUDGETS)})

    def recipe(self, seed: int) -> Recipe:
        """The recipe of all tasks; images and first weights by its seed, the held-out images too."""
        settings = self._settings
        # Each class keeps an image that is not trained on, as a recipe must have some to select networks by.
        share = min(settings["images"] / settings["of"], 1 - 1e-6)
        return load_recipe(
            settings["recipe"],
            (
                f"space={settings['space']}",
                f"data={settings['train']}",
                f"test_data={settings['test']}",
                f"fractions=[{share}, {min(share / 10, 1 - share)}, 0]",
                f"batch_size={settings['batch_size']}",
                f"progressive_shrinking.epochs={settings['epochs']}",
                f"progressive_shrinking.learning_rate={settings['rate']}",
                f"progressive_shrinking.shrinking_learning_rate={settings['supernet_rate']}",
                f"progressive_shrinking.subnets_per_step={settings['subnets']}",
                f"progressive_shrinking.distillation_weight={settings['distillation_weight']}",
                f"precision={settings['precision']}",
                "evaluate_every=0",
                f"seed={seed}",
            ),
        )

    @cached_property
    def splits(self) -> Splits:
        """The images, cut by seed 0 whatever the task; of the test part the first ones. Decoded once for all processes."""
        splits = splits_in(self._work, lambda: self.recipe(0).load_splits())
        return splits._replace(test=splits.test.subset(torch.arange(min(self._settings["test_images"], len(splits.test)))))

    @cached_property
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

    def supernet_recipe(self, method: str, seed: int) -> Recipe:
        recipe = self.recipe(seed)
        return replace(recipe, phases=(joint_phase(recipe),)) if method == "joint" else recipe

    def supernet(self, method: str, seed: int) -> Report:
        recipe, splits, folder = self.supernet_recipe(method, seed), self.splits, self._work / f"{method}-{seed}.run"
        if not (folder / WEIGHTS).exists():  # it is there when a process was stopped while it judged
            train_in(folder, recipe, splits.train, self.device)
        run = load_run(folder)
        run.supernet.to(self.device)
        return {
            "kind": "supernet",
            "method": method,
            "seed": seed,
            "duration_s": sum(epoch.duration_s for epoch in run.metrics),
            "accuracy": [judge(run.supernet.extract(arch), arch.resolution, splits) for arch in self.archs],
            "recipe": recipe.to_toml(),
            "images": len(splits.train),
            "test_images": len(splits.test),
        }

    def twin(self, number: int, seed: int, rate: str = "rate") -> tuple[nn.Module, FineTuning]:
        """A network that is not yet trained, and how it will be: as the supernet is, from its first warm-up on."""
        recipe, arch = self.recipe(seed), self.archs[number]
        network = build_network(lower(recipe.get_space(10), arch), generator=recipe.generator("weights")).to(self.device)
        settings = FineTuning.like(recipe, learning_rate=self._settings[rate])
        return network, replace(settings, warmup_epochs=recipe.phases[0].warmup_epochs)

    def alone(self, number: int, seed: int, rate: str = "rate") -> Report:
        recipe, arch, splits = self.recipe(seed), self.archs[number], self.splits
        network, settings = self.twin(number, seed, rate)
        duration = train_alone(
            network,
            splits,
            self._work / f"alone-{number:02d}-{seed}-{rate}.safetensors",
            resolution=arch.resolution,
            epochs=sum(phase.epochs for phase in recipe.phases),
            generator=recipe.generator("specialization"),
            settings=settings,
        )
        accuracy = judge(network, arch.resolution, splits)
        return {"kind": "alone", "network": number, "seed": seed, "rate": rate, "duration_s": duration, "accuracy": accuracy}

    def tuned(self, number: int, seed: int) -> Report | None:
        """None until the supernet is trained."""
        folder = self._work / f"{BEST}-{seed}.run"
        if not (folder / WEIGHTS).exists():
            return None
        run, arch, splits = load_run(folder), self.archs[number], self.splits
        settings = FineTuning.like(run.recipe, learning_rate=self._settings["fine_tuning_rate"])
        done = specialize(
            run.supernet.to(self.device),
            arch,
            splits.train,
            splits.test,
            epochs=self._settings["fine_tuning_epochs"],
            generator=run.recipe.generator("specialization"),
            settings=settings,
        )
        return {"kind": "tuned", "network": number, "seed": seed, "duration_s": done.metrics.duration_s, "accuracy": done.metrics.accuracy}


def spread_evenly(count: int) -> list[int]:
    """Numbers of so many networks, at even distances from the smallest to the largest."""
    return sorted({round(i * (NETWORKS - 1) / max(1, count - 1)) for i in range(count)})


def joint_phase(recipe: Recipe) -> Phase:
    """All networks from the first step on: the last phase of shrinking, with its subnets a step, for all the epochs."""
    first, last = recipe.phases[0], recipe.phases[-1]
    epochs = sum(phase.epochs for phase in recipe.phases)
    return replace(last, name="joint", epochs=epochs, warmup_epochs=first.warmup_epochs, reorder_channels=False)


def train_in(folder: Path, recipe: Recipe, data: ImageData, device: str) -> None:
    """Train a supernet in the folder of its run, from where the folder says that it stands."""
    supernet = recipe.build_supernet(data.num_classes).to(device)
    state, earlier = continue_run(folder, recipe) if (folder / CONFIG).exists() else (None, ())
    if state is None:
        begin_run(folder, recipe)
    latest = time.monotonic()

    def keep(state: TrainingState) -> None:
        nonlocal latest
        if time.monotonic() - latest >= SECONDS_BETWEEN_STATES:
            save_state(folder, recipe, state)
            latest = time.monotonic()

    later = train(supernet, recipe, data, state=state, on_metrics=lambda epoch: append_metrics(folder, epoch), on_state=keep)
    save_run(folder, supernet, recipe, [*earlier, *later])


if __name__ == "__main__":
    main()
