"""Where the time of our training step goes, by operation.

    python benchmarks/profile_step.py --out benchmarks/results/profile_step.json

Operations are timed one by one as torch dispatches them. torch's own profiler keeps a record of each call, and those records, strewn
among the freed activations, make the C library fetch fresh memory in every step: it then shows page faults that training does not have.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine, others_during
from step_worker import Burst, Side
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--top", type=int, default=16)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    step = Side("ofa", "cpu").ready(Burst())
    for _ in range(6):  # until the memory that is kept has its size
        step()
    with others_during() as others:
        rows = profiled(step, arguments.top)
    for row in rows:
        print(f"{row['operation']:40s} {row['ms']:8.1f} ms {100 * row['share']:5.1f} %  {row['calls']} calls")
    if arguments.out:
        value = {"machine": describe_machine(), "threads": arguments.threads, "other_load_cores": others.cores, "operations": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


class Timer(TorchDispatchMode):
    """Adds up the time of each operation; convolutions are told apart by what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        elapsed = time.perf_counter() - started
        name = operation(func, args)
        self.seconds[name] += elapsed
        self.calls[name] += 1
        return result


def operation(func: Any, args: tuple[Any, ...]) -> str:
    name = str(func).removeprefix("aten.").rsplit(".", 1)[0]
    if name not in ("convolution", "convolution_backward"):
        return name
    weight = args[1] if name == "convolution" else args[2]
    kind = "depthwise" if weight.shape[1] == 1 and weight.shape[0] > 1 else "1x1" if weight.shape[-1] == 1 else "dense"
    by = (
        ""
        if name == "convolution"
        else " by " + " and ".join(w for w, wanted in zip(("input", "weight"), args[10], strict=False) if wanted)
    )
    return f"{name}{by}, {kind}"


def profiled(step: Any, top: int) -> list[dict[str, Any]]:
    """The operations of a step by their time, and what lies between them: Python, autograd and the timing itself."""
    with Timer() as timer:
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        total = time.perf_counter() - started
    rows = sorted(timer.seconds, key=lambda name: -timer.seconds[name])[:top]
    figures = [(name, timer.seconds[name], timer.calls[name]) for name in rows]
    figures.append(("all other operations", sum(timer.seconds.values()) - sum(timer.seconds[name] for name in rows), 0))
    figures.append(("between operations", total - sum(timer.seconds.values()), 0))
    return [
        {"operation": name, "ms": round(1e3 * seconds / STEPS, 1), "share": round(seconds / total, 4), "calls": calls // STEPS}
        for name, seconds, calls in figures
    ]


if __name__ == "__main__":
    main()
