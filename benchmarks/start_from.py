r"""Epochs to an accuracy, with and without the weights of a supernet of other classes to start from (`ofa train --from`).

A supernet learns one half of the classes. Two others learn the other half, of which there are few images: one from nothing, one from the
first one's weights with a new classifier. All have the same recipe but for the start; after each epoch the smallest, a middle and the
largest network are calibrated and tested.

    python benchmarks/start_from.py                                        # digits, in a few minutes
    python benchmarks/start_from.py --train train.parquet --test test.parquet --space ofa-mbv3-32px --first-epochs 20 --epochs 20 \
        --images 2000 --out benchmarks/results/start_from.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from machine import describe_machine, others_during

from ofa.data import Images, load_data, split
from ofa.supernet import Supernet
from ofa.training import EpochMetrics, Recipe, train
from ofa.training.presets import load_recipe
from ofa.training.start import Start, open_start

NETWORKS = ("smallest", "middle", "largest")
STEPS_OF_ACCURACY = 20
"""Accuracies that are asked for are multiples of one in so many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="digits", help="images to train on: a Parquet file, a folder or a name")
    parser.add_argument("--test", help="images to test on; by default three tenths of the others")
    parser.add_argument("--space", default="ofa-mbv3-tiny")
    parser.add_argument("--recipe", default="single-stage")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the recipe")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of all trainings")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--first-epochs", type=int, default=12, help="of the supernet that gives the start")
    parser.add_argument("--epochs", type=int, default=12, help="of those that are compared")
    parser.add_argument("--images", type=int, default=200, help="of the second half of the classes, to train on")
    parser.add_argument("--test-images", type=int, default=2000, help="that are tested on after each epoch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train_data, test_data = both_parts(arguments)
    rows = []
    with others_during() as others:
        for seed in range(arguments.seeds):
            rows.append(compared(arguments, seed, train_data, test_data))
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "epochs"}), flush=True)
    summary = summarized(rows)
    print(json.dumps(summary, indent=1))
    if arguments.out:
        settings = {
            key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items() if key not in ("train", "test")
        }
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "settings": settings, "summary": summary, "rows": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def both_parts(arguments: argparse.Namespace) -> tuple[Images, Images]:
    data = load_data(arguments.train)
    if arguments.test:
        return data, load_data(arguments.test, classes=data.class_names)
    train_data, test_data = split(data, (0.7, 0.3), torch.Generator().manual_seed(0))
    return train_data, test_data


def compared(arguments: argparse.Namespace, seed: int, train_data: Images, test_data: Images) -> dict[str, Any]:
    """One seed: the first half of the classes is learned, then the second half in both ways."""
    half = train_data.num_classes // 2
    first, second = range(half), range(half, train_data.num_classes)
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(arguments, seed, arguments.first_epochs)
        learned, before, _ = trained(recipe, *(of_classes(each, first) for each in (train_data, test_data)))
        path = Path(folder) / "first.safetensors"
        learned.save(path)
        few, tested = of_classes(train_data, second), of_classes(test_data, second)
        order = torch.randperm(len(few), generator=torch.Generator().manual_seed(seed))
        few, tested = few.subset(order[: arguments.images]), tested.subset(torch.arange(min(len(tested), arguments.test_images)))
        ways: dict[str, Start | None] = {"without": None, "with": Start(path=str(path), classifier="new")}
        epochs, seconds = {}, {}
        for way, start in ways.items():
            _, told, seconds[way] = trained(replace(recipe_of(arguments, seed, arguments.epochs), start=start), few, tested)
            epochs[way] = {name: [getattr(epoch, f"{name}_accuracy") for epoch in told] for name in NETWORKS}
    ends = {name: getattr(before[-1], f"{name}_accuracy") for name in NETWORKS}
    return {"seed": seed, "first_half": ends, "seconds": seconds, "epochs": epochs}


def recipe_of(arguments: argparse.Namespace, seed: int, epochs: int) -> Recipe:
    told = (f"{arguments.recipe.replace('-', '_')}.{key}={value}" for key, value in (("epochs", epochs), ("learning_rate", arguments.rate)))
    changes = (
        f"space={arguments.space}",
        f"batch_size={arguments.batch_size}",
        f"seed={seed}",
        f"evaluation_images={arguments.test_images}",
    )
    return load_recipe(arguments.recipe, [*changes, *told, *arguments.set])


def of_classes(images: Any, classes: Sequence[int]) -> Images:
    """The images of some classes, which are numbered anew."""
    index = torch.cat([(images.labels == label).nonzero().flatten() for label in classes]).sort().values
    chosen: Any = images.pick(index)
    number = {label: place for place, label in enumerate(classes)}
    labels = torch.tensor([number[label] for label in chosen.labels.tolist()])
    made: Images = replace(chosen, labels=labels, class_names=tuple(images.class_names[label] for label in classes))
    return made


def trained(recipe: Recipe, data: Images, tested: Images) -> tuple[Supernet, list[EpochMetrics], float]:
    """A supernet, what its epochs came to, and the seconds that they took."""
    supernet = recipe.build_supernet(data.num_classes)
    opened = open_start(recipe.start, recipe.get_space())
    if opened is not None:
        recipe = replace(recipe, start=opened.copy_to(supernet, data.class_names))
    begun, normalization = time.perf_counter(), data.normalization
    metrics = train(supernet, recipe, data.normalized(normalization), selection=tested.normalized(normalization))
    return supernet, metrics, time.perf_counter() - begun


def summarized(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By network: the accuracy at the end, and the epochs to each accuracy that both ways reach with every seed; means over the seeds."""
    summary: dict[str, Any] = {}
    for name in NETWORKS:
        curves = {way: [row["epochs"][way][name] for row in rows] for way in ("without", "with")}
        ends = {way: round(mean(curve[-1] for curve in each), 4) for way, each in curves.items()}
        reached = min(max(curve) for each in curves.values() for curve in each)
        asked = [step / STEPS_OF_ACCURACY for step in range(1, STEPS_OF_ACCURACY + 1) if step / STEPS_OF_ACCURACY <= reached]
        epochs = {
            f"{accuracy:.2f}": {way: mean(first(curve, accuracy) for curve in each) for way, each in curves.items()} for accuracy in asked
        }
        summary[name] = {"accuracy_at_the_end": ends, "epochs_to_accuracy": epochs}
    return summary


def first(curve: Sequence[float], accuracy: float) -> int:
    """The epoch, from 1, after which an accuracy is reached."""
    return next(number for number, value in enumerate(curve, start=1) if value >= accuracy)


if __name__ == "__main__":
    main()
