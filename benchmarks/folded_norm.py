"""Time expanding convolutions with batch norm and activation, forward and backward: batch norm folded, and on its own, in turn.

    python benchmarks/folded_norm.py --out benchmarks/results/folded_norm.json

All of ofa-mbv3-w1.0 at 128 px with 32 images, and of ofa-mbv3-32px with 64. Wall-clock time says what training gains, on an otherwise idle
machine; time of the processors, with --threads 1, is hardly disturbed by other processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine, others_during

from ofa import folded
from ofa.blocks import build_network
from ofa.conv_norm_act import ConvNormAct
from ofa.families import get_space, lower
from ofa.training.memory import keep_freed_memory

SETTINGS = (("ofa-mbv3-w1.0", 128, 32), ("ofa-mbv3-32px", 32, 64))
EXPANDS = (3, 4, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = []
    with others_during() as others:
        for name, resolution, batch in SETTINGS:
            for layer, size in expanding_layers(name, resolution):
                rows.append({"space": name, "batch": batch, **measured(layer, size, batch, arguments.repeats)})
                print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        value = {"machine": describe_machine(), "threads": arguments.threads, "other_load_cores": others.cores, "rows": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def expanding_layers(space_name: str, resolution: int) -> Iterator[tuple[ConvNormAct, int]]:
    """Each different layer whose outputs are more than its inputs, with the side of its images in pixels."""
    space = get_space(space_name)
    seen: set[tuple[object, ...]] = set()
    for expand in EXPANDS:
        for placed in lower(space, space.restrict(expand=[expand]).largest(resolution=resolution)):
            for part in build_network([placed]).modules():
                if not isinstance(part, ConvNormAct) or part.conv.kernel_size != (1, 1) or part.conv.out_channels <= part.conv.in_channels:
                    continue
                key = (part.conv.in_channels, part.conv.out_channels, placed.input.height, type(part.activation))
                if key not in seen:
                    seen.add(key)
                    yield part.train(), placed.input.height


def measured(layer: ConvNormAct, size: int, batch: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds of both ways, whether ours is the folded one, and how many times faster folding is, pair by pair."""
    conv = layer.conv
    x_BCHW = torch.randn(batch, conv.in_channels, size, size).contiguous(memory_format=torch.channels_last)
    gradient_BCHW = torch.randn(batch, conv.out_channels, size, size).contiguous(memory_format=torch.channels_last)
    chosen = folded.is_faster(x_BCHW, conv.out_channels)
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for repeat in range(repeats + 3):
        for fold in times:
            with always(fold):
                taken = timed(layer, x_BCHW.detach().requires_grad_(), gradient_BCHW)
            if repeat >= 3:
                times[fold].append(taken)
    figures: dict[str, Any] = {"inputs": conv.in_channels, "outputs": conv.out_channels, "size_px": size, "folded": chosen}
    for clock, name in enumerate(("", "processor_")):
        ours, plain = ([pair[clock] for pair in times[fold]] for fold in (True, False))
        figures[f"folded_{name}ms"] = round(1e3 * statistics.median(ours), 2)
        figures[f"plain_{name}ms"] = round(1e3 * statistics.median(plain), 2)
        figures[f"{name}speed_up"] = round(statistics.median(p / o for p, o in zip(plain, ours, strict=True)), 2)
    return figures


@contextmanager
def always(fold: bool) -> Iterator[None]:
    """Fold whatever can be, or nothing."""
    rule = folded.is_faster
    folded.is_faster = lambda *_: fold
    try:
        yield
    finally:
        folded.is_faster = rule


def timed(layer: ConvNormAct, x_BCHW: torch.Tensor, gradient_BCHW: torch.Tensor) -> tuple[float, float]:
    """Seconds of a forward and a backward pass by the wall's clock and by the processors'."""
    wall, processor = time.perf_counter(), time.process_time()
    layer(x_BCHW).backward(gradient_BCHW)
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
