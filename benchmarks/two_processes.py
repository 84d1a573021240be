"""Do two processes compute what one computes with the joined batch? Largest differences of the gradient, statistics and weights.

Each side takes one step on three subnets (largest, smallest, random): one process with 64 images, two over gloo with 32 each.

    python benchmarks/two_processes.py --out benchmarks/results/two_processes.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from torch import distributed

from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training.distributed import World, joined
from ofa.training.step import Objective, training_step

SPACE, IMAGES, PORT = "ofa-mbv3-32px", 64, "29617"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        torch.set_num_threads(1)
        with joined("cpu") as world:
            take_step(world, getattr(torch, arguments.worker[0]), Path(arguments.worker[1]))
        return
    (figures32, one32), (figures64, one64) = (compare(dtype) for dtype in ("float32", "float64"))
    # How far rounding alone takes the same step of one process: what float32 can be expected to agree to.
    figures32["one_process_against_float64"] = {name: difference(one32[name].double(), one64[name]) for name in one64}
    figures = {"float32": figures32, "float64": figures64}
    for dtype, figure in figures.items():
        print(dtype, json.dumps(figure))
    if arguments.out:
        value = {"machine": describe_machine(), "space": SPACE, "images": IMAGES, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def difference(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference, as a share of the reference's largest value."""
    return float((tensor - reference).abs().max() / reference.abs().max())


def compare(dtype: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Differences, milliseconds of the one call that reduces the gradient, and what the one process came to."""
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2):
            told = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT} if size > 1 else {}
            command = [sys.executable, __file__, "--worker", dtype, folder]
            processes = [
                subprocess.Popen(command, env={**os.environ, **told, **({"RANK": str(rank)} if told else {})}) for rank in range(size)
            ]
            if any(process.wait() for process in processes):
                raise SystemExit("a process failed; see its message above")
        one, first, second = (torch.load(Path(folder) / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    reduce_ms = float(first.pop("reduce_ms"))
    del one["reduce_ms"], second["reduce_ms"]
    figures = {
        "relative_difference": {name: difference(first[name], one[name]) for name in one},
        "ranks_equal_bit_for_bit": all(torch.equal(first[name], second[name]) for name in first),
        "values_reduced": one["gradient"].numel(),
        "reduce_ms": round(reduce_ms, 2),
    }
    return figures, one


def take_step(world: World, dtype: torch.dtype, folder: Path) -> None:
    space = get_space(SPACE, 10)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).to(dtype).train().synchronize(world.size > 1)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(IMAGES, 3, 32, 32, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (IMAGES,), generator=generator)
    index = world.share(torch.arange(IMAGES))
    archs = [space.largest(32), space.smallest(32), space.restrict(resolution=(32,)).sample(np.random.default_rng(2))]
    optimizer = torch.optim.SGD(supernet.parameter_groups(3e-5), lr=0.05, momentum=0.9, nesterov=True)
    training_step(supernet, archs, (x[index], y[index]), optimizer, Objective(label_smoothing=0.1), world=world)
    told = {"gradient": supernet.flat_gradient, "statistics": supernet.statistics, "weights": supernet.decayed.detach()}
    kept = {name: tensor.clone() for name, tensor in told.items()}
    torch.save({**kept, "reduce_ms": torch.tensor(timed_reduce(world, supernet.flat_gradient))}, folder / f"{world.size}-{world.rank}.pt")


def timed_reduce(world: World, gradient: torch.Tensor) -> float:
    if world.size == 1:
        return 0.0
    distributed.barrier()
    started = time.perf_counter()
    for _ in range(10):
        world.average_(gradient)
    return (time.perf_counter() - started) * 100


if __name__ == "__main__":
    main()
