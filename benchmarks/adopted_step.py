"""What adopting costs: a training step on a random subnet of an adopted network, beside one on the same network by itself.

Both take turns, each in a process of its own, on a batch of 64 images of 32 px with one SGD step each; the supernet's goes over its whole
store. The network by itself is extracted from it, and its parameters are an optimizer's own. ``whole`` is the adopted network at its
largest, beside the model as its author wrote it. Peak memory is that of each process above what it had before its first step.

    python benchmarks/adopted_step.py --out benchmarks/results/adopted_step.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, others_during
from own_models import MODELS
from torch import nn

from ofa.adopting.adoption import adopt_model
from ofa.training.memory import keep_freed_memory
from ofa.training.step import Objective, training_step

IMAGE = (3, 32, 32)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=sorted(MODELS))
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "NETWORK", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker, threads=arguments.threads)
        return
    with others_during() as others:
        rows = [compare(model, number, arguments) for model in arguments.models for number in range(-1, arguments.networks)]
    for row in rows:
        print(json.dumps({key: value for key, value in row.items() if key != "ratios"}))
    if arguments.out:
        value = {
            "machine": describe_machine(),
            "threads": arguments.threads,
            "other_load_cores": others.cores,
            "batch": BATCH,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def compare(model: str, number: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of both sides in turns; network -1 is the whole one beside the model itself."""
    sides = [Worker(model, number, side, arguments.threads) for side in ("elastic", "alone")]
    for _ in range(3):
        for side in sides:
            side.step()
    pairs = [tuple(side.step() for side in sides) for _ in range(arguments.repeats)]
    memory = [side.end() for side in sides]
    ratios = [elastic / alone for elastic, alone in pairs]
    return {
        "model": model,
        "network": "whole" if number < 0 else number,
        "elastic_s": round(statistics.median(pair[0] for pair in pairs), 4),
        "alone_s": round(statistics.median(pair[1] for pair in pairs), 4),
        "ratio": round(statistics.median(ratios), 3),
        "peak_mib": [round(each, 1) for each in memory],
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


class Worker:
    """A process that makes a step whenever it is told to."""

    def __init__(self, model: str, number: int, side: str, threads: int) -> None:
        command = [sys.executable, __file__, "--threads", str(threads), "--worker", model, str(number), side]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> float:
        """Seconds of a step."""
        return float(self._ask("step"))

    def end(self) -> float:
        """MiB of its peak."""
        peak = float(self._ask("end"))
        self._process.wait()
        return peak

    def _ask(self, word: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def work(model: str, number: str, side: str, *, threads: int) -> None:
    """Make steps, one a line of the input."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    made = MODELS[model]()
    supernet = adopt_model(made, IMAGE, resolutions=()).supernet.train()
    space, rng = supernet.space, np.random.default_rng(0)
    archs = [space.largest()] if int(number) < 0 else [space.sample(rng) for _ in range(int(number) + 1)]
    images = torch.randn(BATCH, *IMAGE).contiguous(memory_format=torch.channels_last)
    batch = (images, torch.randint(0, 10, (BATCH,)))
    alone = made.train() if int(number) < 0 else supernet.extract(archs[-1]).train()
    if side == "elastic":
        del alone
        optimizer = torch.optim.SGD(supernet.parameter_groups(3e-5), lr=0.01, momentum=0.9, nesterov=True)

        def step() -> object:
            return training_step(supernet, [archs[-1]], batch, optimizer, Objective())
    else:
        del supernet
        own = torch.optim.SGD(alone.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=3e-5)

        def step() -> object:
            own.zero_grad()
            nn.functional.cross_entropy(alone(images), batch[1], label_smoothing=0.1).backward()
            own.step()
            return None

    before = _peak()
    for line in sys.stdin:
        if line.strip() == "end":
            print(_peak() - before, flush=True)
            return
        begun = time.perf_counter()
        step()
        print(time.perf_counter() - begun, flush=True)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
