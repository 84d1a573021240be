"""What it costs that a file of weights is on the disk before its name is, and proves that it is whole: written and read with and without.

    python benchmarks/checksums.py --work /tmp --out benchmarks/results/checksums.json

The file is of random float32 tensors; "plain" is safetensors' own ``save_file`` and ``load_file``. Reading is from the page cache.
Each time is the median of ``--repeats``, with and without in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import describe_machine, others_during
from safetensors.torch import load_file, save_file

from ofa.files import temporary_folder
from ofa.seal import check_seal
from ofa.weights import read_weights, write_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, help="a folder on the disk that is measured; by default the temporary one")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.work:
        os.environ["TMPDIR"] = str(arguments.work)
    rows = []
    with others_during() as others, temporary_folder("checksums") as folder:
        for megabytes in arguments.megabytes:
            rows.append({"megabytes": megabytes, **measured(folder, megabytes, arguments.repeats)})
            print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "repeats": arguments.repeats, "rows": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def measured(folder: Path, megabytes: int, repeats: int) -> dict[str, Any]:
    """Seconds of each way, of one size."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layer{number}": torch.randn(250_000, generator=generator) for number in range(megabytes)}
    ours, plain = folder / "ours", folder / "plain"
    ways: dict[str, Callable[[], object]] = {
        "write_plain_s": lambda: save_file(tensors, plain),
        "write_s": lambda: write_weights(tensors, ours, {"kind": "benchmark"}),
        "read_plain_s": lambda: load_file(plain),
        "read_s": lambda: read_weights(ours, kind="benchmark"),
        "check_s": lambda: check_seal(ours, required=True, what="it"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(median(values), 4) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
