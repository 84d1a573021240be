"""Time the training step of a supernet: a teacher and four random subnets on a batch of 32 images of 128 px.

Ours and, with --peer-python, MIT's once-for-all package run in processes of their own and take turns step by step, so that both
see the same minutes of the machine. The step is the same for both: the teacher's logits (largest network, training mode, no
gradient), then for each of four given subnets forward, soft-label plus label-smoothed cross entropy and backward, and one SGD step.

    python benchmarks/training_step.py --peer-python PEER/bin/python --repeats 9 --out benchmarks/results/training_step.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from machine import describe_machine, others_during
from step_process import StepProcess

BATCH = 32


class Side:
    """A process that makes a step when it is its turn, and what its steps took."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name = name
        self.process = StepProcess(name, python, ["--threads", str(threads)])
        self.seconds: list[float] = []
        self.peak_mib = 0.0

    def step(self) -> None:
        answer = self.process.burst(batch=BATCH, resolution=128)
        self.seconds += answer["seconds"]
        self.peak_mib = answer["peak_mib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment that has MIT's package (pip install --no-deps ofa) and torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--variants", nargs="+", default=["ofa"], help="of ours: ofa (as the command line runs it), plain (no memory policy)"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sides = [Side(name, sys.executable, arguments.threads) for name in arguments.variants]
    if arguments.peer_python:
        sides.append(Side("mit", arguments.peer_python, arguments.threads))
    for side in sides:
        side.step()
        side.seconds.clear()
    with others_during() as others:
        for _ in range(arguments.repeats):
            for side in sides:
                side.step()
    figures = {side.name: figures_of(side, sides[-1]) for side in sides}
    for name, figure in figures.items():
        print(name, json.dumps(figure))
    if arguments.out:
        machine = describe_machine()
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"machine": machine, "threads": arguments.threads, "other_load_cores": others.cores, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def figures_of(side: Side, reference: Side) -> dict[str, Any]:
    """Images a second, peak memory, and how many times faster than the reference, pair by pair."""
    ratios = [theirs / ours for ours, theirs in zip(side.seconds, reference.seconds, strict=True)]
    median = statistics.median(side.seconds)
    return {
        "images_per_s": round(BATCH / median, 2),
        "step_s": spread(side.seconds),
        f"speed_against_{reference.name}": spread(ratios),
        "peak_mib": round(side.peak_mib),
        "repeats": len(side.seconds),
    }


if __name__ == "__main__":
    main()
