"""Is the loader ever what training waits for? Its images a second alone, the step's, and the share of the time that steps wait.

    python benchmarks/loader_speed.py ofa-mbv3-32px=cifar10/train.parquet ofa-mbv3-w1.0=imagenette/train.parquet \
        --out benchmarks/results/loader_speed.json

Each argument is a space and data as a recipe names it. The step is that of the recipe's last phase, on batches of 32.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine, others_during

from ofa.data import BatchPlan, default_workers, load_data, measure_loader
from ofa.progress import silent
from ofa.training import Recipe
from ofa.training.distributed import ALONE
from ofa.training.dry_run import estimate_phases, loader_rate
from ofa.training.memory import keep_freed_memory
from ofa.training.presets import load_recipe
from ofa.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="SPACE=DATA")
    parser.add_argument("--recipe", default="small-budget")
    parser.add_argument("--augmentation", default="{crop_scale = 0.35, flip = true}")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = []
    with others_during() as others:
        for pair in arguments.pairs:
            space, _, data = pair.partition("=")
            rows.append(measured(space, data, arguments))
            print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        value = {"machine": describe_machine(), "threads": arguments.threads, "other_load_cores": others.cores, "rows": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def measured(space: str, data: str, arguments: argparse.Namespace) -> dict[str, Any]:
    changes = (f"space={space}", f"data={data}", "batch_size=32", f"augmentation={arguments.augmentation}")
    recipe = load_recipe(arguments.recipe, changes)
    recipe = replace(recipe, phases=(replace(recipe.phases[-1], reorder_channels=False),))
    splits = recipe.load_splits()
    supernet = recipe.build_supernet(splits.train.num_classes).train()
    trainer = Trainer(supernet, recipe, splits.train, ALONE, silent)
    trainer.epoch(until=arguments.steps)
    totals = trainer.capture().values["totals"]
    (estimate,) = estimate_phases(supernet, recipe, splits.train, steps=arguments.steps)
    return {
        "space": space,
        "images": len(splits.train),
        "in_memory": default_workers(splits.train) == 0,
        "workers": default_workers(splits.train),
        "subnets_per_step": recipe.phases[0].subnets_per_step,
        "loader_images_per_s": round(loader_rate(recipe, splits.train), 1),
        "streamed_images_per_s": round(streamed(recipe), 1),
        "step_images_per_s": round(estimate.images_per_s, 1),
        "waiting_share_with_start": round(totals["waiting_s"] / totals["duration_s"], 4),
    }


def streamed(recipe: Recipe, batches: int = 60) -> float:
    """Images a second of the same set as it is read when it does not fit in memory: decoded by one worker process."""
    data = load_data(recipe.data, memory=1)
    resolution = recipe.get_space(data.num_classes).resolutions[-1]
    plans = [BatchPlan((torch.arange(32) + 32 * number) % len(data), resolution, number) for number in range(batches)]
    return measure_loader(data, plans, augmentation=recipe.augmentation, workers=1)


if __name__ == "__main__":
    main()
