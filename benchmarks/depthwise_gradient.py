"""Time the gradients of depthwise convolutions, by the weight alone and by the input too: torch's own and ours in turn, one thread.

python benchmarks/depthwise_gradient.py --out benchmarks/results/depthwise_gradient.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine, others_during

from ofa.depthwise import DepthwiseConv2d
from ofa.training.memory import keep_freed_memory

# Channels, pixels of a side, kernel and stride, as they occur in ofa-mbv3-w1.0 at 128 px; batch 32.
SHAPES = (
    (96, 64, 5, 2),
    (96, 64, 7, 2),
    (144, 32, 3, 1),
    (144, 32, 7, 1),
    (240, 16, 3, 1),
    (240, 16, 7, 1),
    (480, 8, 5, 1),
    (672, 8, 7, 1),
    (960, 4, 5, 1),
    (960, 4, 7, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    with others_during() as others:
        rows = [measured(*shape, arguments.repeats) for shape in SHAPES]
    for row in rows:
        print(json.dumps(row))
    if arguments.out:
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "rows": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def measured(channels: int, size: int, kernel: int, stride: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds of backward passes, torch's and ours, and by the weight also torch's with three columns."""
    image = torch.randn(32, channels, size, size).contiguous(memory_format=torch.channels_last)
    ours = DepthwiseConv2d(channels, kernel, stride)
    torch_own = torch.nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    narrow = torch.nn.Conv2d(channels, channels, (kernel, 3), stride, (kernel // 2, 1), groups=channels, bias=False)
    passes = {
        f"{name}_by_{by}_ms": backward_pass(conv, image.detach().requires_grad_(by == "both"))
        for by, convs in (
            ("weight", {"ours": ours, "torch": torch_own, "torch_narrow": narrow}),
            ("both", {"ours": ours, "torch": torch_own}),
        )
        for name, conv in convs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for repeat in range(repeats + 2):
        for name, run in passes.items():
            elapsed = run()
            if repeat >= 2:
                seconds[name].append(elapsed)
    shape = {"channels": channels, "size_px": size, "kernel": kernel, "stride": stride}
    return {**shape, **{name: round(1e3 * statistics.median(values), 2) for name, values in seconds.items()}}


def backward_pass(conv: torch.nn.Conv2d, image: torch.Tensor) -> Callable[[], float]:
    """A function that makes the pass once and returns its seconds; the forward pass before it is not timed."""

    def run() -> float:
        output = conv(image)
        gradient = torch.ones_like(output)
        start = time.perf_counter()
        output.backward(gradient)
        return time.perf_counter() - start

    return run


if __name__ == "__main__":
    main()
