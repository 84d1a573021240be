"""Time what is done with a supernet besides arithmetic: build it, pick a subnet, extract one, save, load, export to ONNX.

python benchmarks/supernet_operations.py --out benchmarks/results/supernet_operations.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, others_during

from ofa.exporting.onnx import export
from ofa.families import get_space
from ofa.supernet import Supernet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with others_during() as others:
        figures = {name: measure(name, arguments.repeats) for name in arguments.spaces}
    for name, figure in figures.items():
        print(name, json.dumps(figure))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"machine": describe_machine(), "threads": arguments.threads, "other_load_cores": others.cores, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Median, least and most milliseconds of each operation on one space, and whether extraction is exact."""
    space = get_space(name)
    rng = np.random.default_rng(0)
    supernet = Supernet(space)
    archs = [space.sample(rng) for _ in range(1000)]
    for arch in archs[:500]:
        supernet.subnet(arch)
    shipped = supernet.extract(archs[0])
    picks = iter(archs[500:] * repeats)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "supernet.safetensors"
        return {
            "build_ms": timed(lambda: Supernet(space), repeats),
            "sample_ms": timed(lambda: space.sample(rng), 500),
            "pick_new_ms": timed(lambda: supernet.subnet(next(picks)), 500),
            "extract_largest_ms": timed(lambda: supernet.extract(space.largest()), repeats),
            "save_ms": timed(lambda: supernet.save(path), repeats),
            "load_ms": timed(lambda: Supernet.load(path), repeats),
            "export_onnx_ms": timed(lambda: export(shipped, (1, 3, 224, 224), path.with_suffix(".onnx")), repeats),
            "equal_bit_for_bit": f"{equal(supernet, archs[:10])} of 10",
        }


def timed(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Wall-clock milliseconds of one call."""
    function()
    milliseconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        milliseconds.append((time.perf_counter() - start) * 1e3)
        del result  # freed outside of the time
    return {"median": round(statistics.median(milliseconds), 4), "min": round(min(milliseconds), 4), "max": round(max(milliseconds), 4)}


def equal(supernet: Supernet, archs: list[Any]) -> int:
    """How many archs' subnets give the same bits as their extracts."""
    supernet.eval()
    x_BCHW = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sum(torch.equal(supernet.subnet(arch)(x_BCHW), supernet.extract(arch)(x_BCHW)) for arch in archs)


if __name__ == "__main__":
    main()
