"""Which criterion of importance keeps the accuracy of narrow networks best, when nothing is trained after narrowing.

    python benchmarks/importance.py --out benchmarks/results/importance.json
    python benchmarks/importance.py RUN --data PATH --test-data PATH --out ..

Without a RUN the largest networks of two small spaces are trained on digits, once a seed; a RUN is a folder that ``ofa train`` wrote,
whose largest network is narrowed once a seed with other images for the criteria. In each group of channels that is elastic in the space a
share of the channels is kept, those of the highest scores, and the others are set to zero, which computes what the narrower network would.
Batch norms are calibrated, and accuracy is on the test part.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine, others_during
from torch import Tensor, nn

from ofa.calibrate import calibrate
from ofa.data import Splits
from ofa.data.batches import batches
from ofa.groups import Group
from ofa.importance import IMPORTANCES, Examples
from ofa.sharing import channel_groups, order_within
from ofa.supernet import Supernet
from ofa.tasks import CLASSIFICATION
from ofa.training import Phase, Recipe, evaluate, load_run, train

SPACES = {"ofa-mbv3-tiny": 16, "ofa-resnet50-tiny": 24}
"""By name the resolution that is trained, calibrated and judged at."""
SHARES = (0.75, 0.5, 0.3)
BATCHES, BATCH = 16, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--data", default="", help="where the images of the run are now")
    parser.add_argument("--test-data", default="", help="where those to test on are now")
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of the networks that are trained on digits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = of_run(arguments) if arguments.run else of_digits(arguments.epochs, arguments.seeds)
    with others_during() as others:
        rows = [row for name, seed, supernet, resolution, splits in cases for row in measure(name, seed, supernet, resolution, splits)]
    show(rows)
    if arguments.out:
        told = {"machine": describe_machine(), "other_cores": others.cores, "rows": rows}
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")


Case = tuple[str, int, Supernet, Any, Splits]


def of_digits(epochs: int, seeds: int) -> Iterator[Case]:
    """Largest networks, trained alone."""
    for space, resolution in SPACES.items():
        for seed in range(seeds):
            full = Phase(name="full", epochs=epochs, learning_rate=0.1, warmup_epochs=0.5, resolutions=(resolution,))
            recipe = Recipe(space=space, data="digits", phases=(full,), batch_size=32, fractions=(0.5, 0.1, 0.4), seed=seed)
            splits = recipe.load_splits()
            supernet = recipe.build_supernet(splits.train.num_classes)
            train(supernet, recipe, splits.train)
            yield space, seed, supernet, resolution, splits


def of_run(arguments: argparse.Namespace) -> Iterator[Case]:
    """The largest network of a run, at the largest resolution that it was last trained at."""
    run = load_run(arguments.run)
    resolution = run.recipe.phases[-1].restrict(run.supernet.space).resolutions[-1]
    splits = run.load_data(data=arguments.data, test_data=arguments.test_data).splits
    test = splits.test.subset(torch.arange(min(arguments.test_images, len(splits.test))))
    for seed in range(arguments.seeds):
        yield run.supernet.space.name, seed, run.supernet, resolution, splits._replace(test=test)


def measure(name: str, seed: int, supernet: Supernet, resolution: Any, splits: Splits) -> Iterator[dict[str, Any]]:
    """The accuracy by criterion and share, and that of the whole network."""
    groups = [each.group for each in channel_groups(supernet.space)]
    yield {"space": name, "seed": seed, "criterion": "", "share": 1.0, "accuracy": accuracy(supernet, groups, [], 1.0, resolution, splits)}
    for criterion in IMPORTANCES.own:
        generator = torch.Generator().manual_seed(seed)
        shuffled = batches(splits.train, batch_size=BATCH, resolution=resolution, generator=generator)
        examples = Examples((batch for _, batch in zip(range(BATCHES), shuffled, strict=False)), BATCHES, CLASSIFICATION.loss)
        scores = list(supernet.channel_scores(IMPORTANCES.get(criterion), examples, generator=generator))
        for share in SHARES:
            found = accuracy(supernet, groups, scores, share, resolution, splits)
            yield {"space": name, "seed": seed, "criterion": criterion, "share": share, "accuracy": found}
            print(f"{name} seed {seed}: {criterion}, {share:.0%} of the channels: {found:.3f}", flush=True)


def accuracy(
    supernet: Supernet, groups: Sequence[Group], scores: Sequence[Tensor | None], share: float, resolution: Any, splits: Splits
) -> float:
    """Of the largest network with a share of its channels; groups without scores keep their leading ones."""
    network = supernet.extract(supernet.space.largest())
    for group, scores_U in zip(groups, scores, strict=False):
        order = torch.arange(group.units) if scores_U is None else order_within(scores_U, [])
        remove(network, group, order[round(share * group.units) :])
    calibrate(network, splits.train, resolution=resolution)
    return evaluate(network, splits.test, resolution=resolution)


@torch.no_grad()
def remove(network: nn.Module, group: Group, units: Tensor) -> None:
    """Set all that belongs to some units to zero; no family has units of several channels."""
    tensors = network.state_dict()
    for member in group.members:
        tensors[member.tensor].index_fill_(member.dim, units, 0.0)


def show(rows: Iterable[dict[str, Any]]) -> None:
    """A table a space: the mean, the least and the most of the seeds, in percent."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for row in rows:
        found.setdefault(row["space"], {}).setdefault(row["criterion"] or "whole", {}).setdefault(row["share"], []).append(row["accuracy"])
    for space, table in found.items():
        print(f"\n| {space} | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |\n" + "| --- " * (len(SHARES) + 1) + "|")
        for criterion, shares in table.items():
            cells = [f"{100 * sum(a) / len(a):.1f} ({100 * min(a):.1f} .. {100 * max(a):.1f})" for a in shares.values()]
            print(f"| {criterion} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
