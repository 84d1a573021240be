"""How many images batch-norm calibration needs: the accuracy of a trained supernet's networks by the number of images.

    python benchmarks/calibration_images.py RUN [RUN ...] --out benchmarks/results/calibration_images.json

A RUN is a folder that ``ofa train`` wrote and whose data is still there; accuracy is on its test part.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine

from ofa.calibrate import calibrate
from ofa.training import evaluate, load_run
from ofa.training.sampling import make_sampler

COUNTS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = {str(path.name): measure(path, arguments.networks, arguments.test_images) for path in arguments.runs}
    for name, rows in figures.items():
        print(name)
        for row in rows:
            print(f"{row['images']:6d} images: mean accuracy {row['accuracy']:.4f}, change to the last {row['largest_change']:.4f} at most")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": describe_machine(), "figures": figures}, indent=1) + "\n")


def measure(path: Path, networks: int, test_images: int) -> list[dict[str, Any]]:
    """By number of images: the accuracy of each network, their mean, and how far any is from that with the most images."""
    run = load_run(path)
    splits = run.load_data().splits
    test = splits.test.subset(torch.arange(min(test_images, len(splits.test))))
    space = run.supernet.space
    drawn = make_sampler("strata", space).draw(space, networks - 2, np.random.default_rng(0))
    archs = [space.smallest(), *drawn, space.largest()]
    counts = [count for count in COUNTS if count < len(splits.train)] + [len(splits.train)] * (len(splits.train) < COUNTS[-1])
    table = np.zeros((len(counts), len(archs)))
    for column, arch in enumerate(archs):
        for row, count in enumerate(counts):
            network = run.supernet.extract(arch)
            calibrate(network, splits.train, resolution=arch.resolution, images=count)
            table[row, column] = evaluate(network, test, resolution=arch.resolution)
    change = np.abs(table - table[-1]).max(1)
    return [
        {"images": count, "accuracy": float(row.mean()), "largest_change": float(far), "networks": row.tolist()}
        for count, row, far in zip(counts, table, change, strict=True)
    ]


if __name__ == "__main__":
    main()
