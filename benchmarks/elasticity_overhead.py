"""What elasticity costs: a training step on a random subnet of a supernet, beside one on the same network built by itself.

Both take turns in one process, on a batch of 32 images of 128 px with one SGD step each: the supernet's goes over its whole store.

    python benchmarks/elasticity_overhead.py --out benchmarks/results/elasticity_overhead.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, others_during
from torch import nn

from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.families import get_space, lower
from ofa.supernet import Supernet
from ofa.training.memory import keep_freed_memory
from ofa.training.step import Objective, training_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ofa-mbv3-w1.0")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    space = get_space(arguments.space)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).train()
    rng = np.random.default_rng(0)
    archs = [space.restrict(resolution=(arguments.resolution,)).sample(rng) for _ in range(arguments.networks)]
    images = torch.randn(arguments.batch, 3, arguments.resolution, arguments.resolution, generator=torch.Generator().manual_seed(0))
    batch = (images.contiguous(memory_format=torch.channels_last), torch.randint(0, space.num_classes, (arguments.batch,)))
    with others_during() as others:
        rows = [compare(supernet, arch, batch, arguments.repeats) for arch in archs]
    for row in rows:
        print(json.dumps(row))
    ratios = [ratio for row in rows for ratio in row["ratios"]]
    print("median of all pairs", round(statistics.median(ratios), 3))
    if arguments.out:
        value = {
            "machine": describe_machine(),
            "threads": arguments.threads,
            "other_load_cores": others.cores,
            "batch": arguments.batch,
            "median_ratio": round(statistics.median(ratios), 4),
            "networks": rows,
        }
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def compare(supernet: Supernet, arch: Arch, batch: tuple[torch.Tensor, torch.Tensor], repeats: int) -> dict[str, Any]:
    """Seconds of both steps in turns, and the ratio of each pair."""
    optimizer = torch.optim.SGD(supernet.parameter_groups(3e-5), lr=0.01, momentum=0.9, nesterov=True)
    static = build_network(lower(supernet.space, arch)).train()
    own = torch.optim.SGD(static.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=3e-5)
    objective = Objective(label_smoothing=0.1)
    steps = (lambda: training_step(supernet, [arch], batch, optimizer, objective), lambda: static_step(static, batch, own))
    for step in steps * 2:
        step()
    seconds = [[timed(step) for step in steps] for _ in range(repeats)]
    return {
        "elastic_s": round(statistics.median(pair[0] for pair in seconds), 4),
        "static_s": round(statistics.median(pair[1] for pair in seconds), 4),
        "ratios": [round(elastic / static, 4) for elastic, static in seconds],
    }


def static_step(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    logits = network(batch[0])
    nn.functional.cross_entropy(logits, batch[1], label_smoothing=0.1).backward()
    optimizer.step()


def timed(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
