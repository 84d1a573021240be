"""Folders of pictures for runs, and what became of them in the parts of the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ofa.data import Images, Splits
from ofa.training import Recipe, RunData, data_of_run

MakeRecipe = Callable[..., Recipe]
NAMES = ("ant", "bee", "cat")


def picture(seed: int) -> Image.Image:
    """Noise that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8))


def photos(root: Path, count: int = 12, names: tuple[str, ...] = NAMES, first: int = 0) -> Path:
    """A folder a class, of so many pictures each."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(first + 1000 * label + number).save(root / name / f"{number:03}.png")
    return root


def contents(part: Images) -> list[bytes]:
    return [key.numpy().tobytes() for key in part.keys]


def same(one: Splits, other: Splits) -> bool:
    """Whether all parts have the same images in the same order, under the same names and normalization."""
    return all(
        contents(mine) == contents(theirs) and mine.normalization == theirs.normalization and names_of(mine) == names_of(theirs)
        for mine, theirs in zip(one, other, strict=True)
    )


def names_of(part: Images) -> list[str]:
    return [part.class_names[label] for label in part.labels.tolist()]


def again(begun: RunData, recipe: Recipe, **settings: object) -> RunData:
    """What a later command finds."""
    return data_of_run(recipe, begun.record, **settings)  # type: ignore[arg-type]


def shard(path: Path, labels: list[int], names: tuple[str, ...] | None, seeds: list[int]) -> Path:
    """A Parquet file in the layout of Hugging Face."""
    rows = []
    for seed in seeds:
        picture(seed).save(path.with_suffix(".png"))
        rows.append({"bytes": path.with_suffix(".png").read_bytes(), "path": None})
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    if names:
        features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        schema = schema.with_metadata({"huggingface": json.dumps(features)})
    pq.write_table(pa.Table.from_pydict({"image": rows, "label": labels}, schema=schema), path)
    return path


def contents_of(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
