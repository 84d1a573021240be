"""How long a step of a task of subnet_accuracy.py takes, and the judging of a network, beside whatever else runs on the machine then.

    python benchmarks/subnet_speed.py --kind supernet --seconds 8 --speed speed.json [arguments of subnet_accuracy.py]

Its images are noise of the right size, so that nothing has to be read; what a step costs does not depend on what it sees.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from subnet_accuracy import NETWORKS, Work, arguments_of
from tasks import judge, own_settings

from ofa.data import ImageData, Splits
from ofa.files import replacing
from ofa.progress import Progress
from ofa.training import train
from ofa.training.memory import keep_freed_memory
from ofa.training.sampling import Repeated, make_sampler
from ofa.training.single import train_network

STEPS = 20
"""Steps that the noise is enough for, in one pass."""


class EnoughError(Exception):
    """The time is over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("supernet", "alone"), required=True)
    parser.add_argument("--network", type=int, default=NETWORKS - 1, help="that is trained alone")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--speed", type=Path, required=True, help="JSON of the result")
    own, rest = parser.parse_known_args()
    arguments = arguments_of(rest)
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    tasks = Work(own_settings(arguments), arguments.work)
    splits = noise(arguments.batch_size, tasks.archs[-1].resolution, arguments.test_images)
    step_s = (
        supernet_step_s(tasks, splits, own.seconds) if own.kind == "supernet" else alone_step_s(tasks, splits, own.network, own.seconds)
    )
    started = time.perf_counter()
    judge(tasks.twin(NETWORKS - 1, 0)[0], tasks.archs[-1].resolution, splits)
    with replacing(own.speed) as temporary:
        temporary.write_text(json.dumps({"kind": own.kind, "step_s": step_s, "judge_s": time.perf_counter() - started}) + "\n")


def noise(batch_size: int, size_px: int, test_images: int) -> Splits:
    """Images of ten classes, enough for some steps and for the test."""
    generator = torch.Generator().manual_seed(0)
    names = tuple(map(str, range(10)))
    parts = []
    for count in (STEPS * batch_size, 10, test_images):
        images = torch.randint(256, (count, 3, size_px, size_px), dtype=torch.uint8, generator=generator)
        parts.append(ImageData(images=images, labels=torch.arange(count) % 10, class_names=names))
    return Splits(*parts)


def supernet_step_s(tasks: Work, splits: Splits, seconds: float) -> float:
    """Seconds a step of all networks together, which no step of another phase exceeds.

    Subnets are drawn once and trained again and again: on a GPU a block takes longer the first two times, which are few in a training.
    """
    recipe = tasks.supernet_recipe("joint", 0)
    supernet = recipe.build_supernet(10).to(tasks.device)
    sampler = Repeated(make_sampler(recipe.phases[0].sampling, supernet.space), draws=1)
    return time_of_one(lambda progress: train(supernet, recipe, splits.train, progress=progress, sampler=sampler), seconds)


def alone_step_s(tasks: Work, splits: Splits, number: int, seconds: float) -> float:
    """Seconds a step of a network that is trained alone."""
    network, settings = tasks.twin(number, 0)
    generator = torch.Generator().manual_seed(0)

    def run(progress: Progress) -> None:
        size_px = tasks.archs[number].resolution
        train_network(network, splits.train, resolution=size_px, epochs=10**6, generator=generator, settings=settings, progress=progress)

    return time_of_one(run, seconds) / STEPS  # it tells of passes


def time_of_one(run: Callable[[Progress], object], seconds: float) -> float:
    """Seconds of one of the units that ``run`` tells of; the first third of the time is left out, in which kernels are chosen."""
    told: list[tuple[float, int]] = []
    start = time.perf_counter()

    def progress(done: int, total: int, text: str = "") -> None:
        told.append((time.perf_counter(), done))
        if told[-1][0] - start > seconds and len(told) > 3:
            raise EnoughError

    with suppress(EnoughError):
        run(progress)
    (since, before), (until, after) = told[len(told) // 3], told[-1]
    return (until - since) / (after - before)


if __name__ == "__main__":
    main()
