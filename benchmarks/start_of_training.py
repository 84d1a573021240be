"""How long it takes until training can begin, and how much memory: all images looked at and decoded once, and the first batch.

    python benchmarks/start_of_training.py --work /tmp/start --out benchmarks/results/start_of_training.json

The sets are made here: folders of links to 64 distinct photos (so all but 64 contents are repeated, and the files lie in the page
cache), and Parquet files with the same bytes, all written out. Each row is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine, others_during
from PIL import Image

CLASSES, DISTINCT = 10, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 15_000, 50_000])
    parser.add_argument("--size", type=int, nargs=2, default=[320, 240])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(str(arguments.measure))))
        return
    if arguments.work is None:
        parser.error("name a folder for the sets with --work")
    photos = distinct_photos(arguments.work / "photos", arguments.size)
    rows = []
    with others_during() as others:
        for count in arguments.counts:
            for layout, make in (("folder", make_folder), ("parquet", make_parquet)):
                data = make(arguments.work, photos, count)
                done = subprocess.run([sys.executable, __file__, "--measure", str(data)], capture_output=True, text=True, check=True)
                rows.append({"layout": layout, "images": count, **json.loads(done.stdout)})
                print(json.dumps(rows[-1]), flush=True)
                if layout == "parquet":
                    data.unlink()
    if arguments.out:
        about = {"distinct_images": DISTINCT, "size_px": arguments.size, "bytes_of_all_distinct": sum(p.stat().st_size for p in photos)}
        value = {"machine": describe_machine(), "other_load_cores": others.cores, **about, "rows": rows}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def measured(data: str) -> dict[str, Any]:
    """One set read, in this process."""
    import torch

    from ofa.data import BatchPlan, load_batches, load_data

    before = peak_mb()
    started = time.perf_counter()
    images = load_data(data)
    loaded = time.perf_counter()
    after = peak_mb()
    normalized = images.normalized(((0.5,) * 3, (0.25,) * 3))
    next(load_batches(normalized, [BatchPlan(torch.arange(64) * (len(images) // 64), 224, 0)], workers=1))
    return {
        "load_s": round(loaded - started, 2),
        "images_per_s": round(len(images) / (loaded - started), 1),
        "first_batch_s": round(time.perf_counter() - loaded, 2),
        "peak_before_mb": before,
        "peak_after_load_mb": after,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """The most memory that this process has held, in MB of 10^6 bytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def distinct_photos(folder: Path, size: list[int]) -> list[Path]:
    """JPEG files of about the bytes a pixel that photos have, of two sizes, so that they stay encoded."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for number in range(DISTINCT):
        width, height = size[0] - number % 2 * 8, size[1]
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = np.clip(np.asarray(coarse) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=85)
    return paths


def make_folder(work: Path, photos: list[Path], count: int) -> Path:
    root = work / f"folder{count}"
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        link = root / f"class{number % CLASSES}" / f"{number:06}.jpg"
        if not link.is_symlink():
            link.symlink_to(photos[number % DISTINCT].resolve())
    return root


def make_parquet(work: Path, photos: list[Path], count: int) -> Path:
    path, contents = work / f"set{count}.parquet", [photo.read_bytes() for photo in photos]
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            images = [contents[number % DISTINCT] for number in numbers]
            writer.write_table(pa.table({"image": images, "label": [number % CLASSES for number in numbers]}, schema))
    return path


if __name__ == "__main__":
    main()
