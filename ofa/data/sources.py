"""Where data sets come from: one line of a recipe names a set, a Parquet file, a folder, or a dataset in code."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ofa.data.encoded import BROKEN, DatasetItems, EncodedImages, FileItems, Items, ParquetItems, Unreadable, pixels_of
from ofa.data.images import ImageData, Images, keys_of
from ofa.errors import DataError, nearest
from ofa.progress import Progress, silent

__all__ = ["data_names", "digits", "load_data"]

_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")
_PURPOSES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
"""What files and folders are called whose images are not of one class but for one purpose."""
_MEMORY = 2 * 2**30
_NAMED = 3
"""How many broken images an error names."""


def digits() -> ImageData:
    """The 1797 handwritten digits that come with scikit-learn: real scans of 8x8 pixels in 17 grey levels.

    The source is the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998). The grey channel is
    repeated three times, because the networks here take colour images.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    scans = load_digits()
    grey = torch.from_numpy(np.round(scans.images * (255 / 16)).astype(np.uint8))
    return ImageData(
        images=grey[:, None].repeat(1, 3, 1, 1),
        labels=torch.from_numpy(scans.target.astype(np.int64)),
        class_names=tuple(str(name) for name in scans.target_names),
    )


_DATA: dict[str, Callable[[], ImageData]] = {"digits": digits}


def data_names() -> tuple[str, ...]:
    """The names of sets that ``load_data`` knows."""
    return tuple(sorted(_DATA))


def load_data(spec: str, *, unreadable: Unreadable = "refuse", memory: int = _MEMORY, progress: Progress = silent) -> Images:
    """The data set that a recipe names.

    Args:
        spec: the name of a set (``digits``); a Parquet file, or a folder of them, in the layout of Hugging Face (a column ``image`` of
            encoded bytes, and ``label``); a folder with one folder of images a class; or ``package.module:attribute``, a
            ``torch.utils.data.Dataset`` of (image, label), or a function without arguments that makes one. Several Parquet files of
            a folder can be named by a pattern, ``photos/train-*.parquet``.
        unreadable: what is done with images that cannot be read: ``refuse`` the set, or ``skip`` and name them.
        memory: bytes up to which images of one size are decoded at once and kept in memory.
        progress: told of the images that were looked at.

    Raises:
        DataError: there is no such set, or it cannot be used.
    """
    if spec in _DATA:
        return _DATA[spec]()
    path = Path(spec).expanduser()
    if path.is_dir():
        shards = _shards(path)
        items, labels, names = _parquet(shards, spec) if shards else _folder(path)
    elif path.is_file():
        items, labels, names = _parquet([path], spec)
    elif "*" in path.name and (shards := sorted(path.parent.glob(path.name))):
        items, labels, names = _parquet(shards, spec)
    elif ":" in spec and "/" not in spec:
        items, labels, names = _dataset(spec)
    else:
        raise DataError(
            f"data must be a Parquet file, a folder, module:attribute or the name of a set, but '{spec}' is none of them; "
            f"check the path, or {nearest(spec, _DATA)}"
        )
    return _loaded(items, labels, names, unreadable, memory, progress)


# -- from items to a set ----------------------------------------------------------------------------------------------


def _loaded(items: Items, labels: Tensor, names: tuple[str, ...], unreadable: Unreadable, memory: int, progress: Progress) -> Images:
    """Decoded in memory if all images are of one size and small enough together, else encoded."""
    sizes = _sizes(items, progress)
    common = next((size for size in sizes if size is not None), None)
    alike = common is not None and all(size in (common, None) for size in sizes)
    fits = common is not None and len(items) * common[0] * common[1] * 3 <= memory
    decoded: list[Tensor | None] | None = None
    if alike and fits:
        decoded = [_pixels(items, number) if size is not None else None for number, size in enumerate(sizes)]
        good = [number for number, pixels in enumerate(decoded) if pixels is not None]
    else:
        good = [number for number, size in enumerate(sizes) if size is not None]
    skipped = _skipped(items, good, unreadable)
    rows = torch.tensor(good, dtype=torch.int64)
    keys = keys_of(items.content(number) for number in good)
    if decoded is None:
        return EncodedImages(
            items=items, rows=rows, labels=labels[rows], class_names=names, keys=keys, unreadable=unreadable, skipped=skipped
        )
    images = torch.stack([pixels for pixels in decoded if pixels is not None])
    return ImageData(images=images, labels=labels[rows], class_names=names, skipped=skipped, known_keys=keys)


def _sizes(items: Items, progress: Progress) -> list[tuple[int, int] | None]:
    """Width and height of each image by its header; None where that cannot be read."""
    sizes: list[tuple[int, int] | None] = []
    for number in range(len(items)):
        try:
            with items.open(number) as image:
                sizes.append(image.size)
        except BROKEN:
            sizes.append(None)
        if number % 500 == 0 or number + 1 == len(items):
            progress(number + 1, len(items), "images")
    return sizes


def _pixels(items: Items, number: int) -> Tensor | None:
    try:
        with items.open(number) as image:
            return pixels_of(image)
    except BROKEN:
        return None


def _skipped(items: Items, good: Sequence[int], unreadable: Unreadable) -> tuple[str, ...]:
    """The names of the images that are not good.

    Raises:
        DataError: there are some and they are to be refused, or all are.
    """
    kept = set(good)
    bad = [number for number in range(len(items)) if number not in kept]
    if not bad:
        return ()
    first = ", ".join(items.name(number) for number in bad[:_NAMED]) + (" ..." if len(bad) > _NAMED else "")
    if unreadable == "refuse" or not good:
        raise DataError(
            f'every image must be readable, but {len(bad)} of {len(items)} are not: {first}; remove them or set unreadable = "skip"'
        )
    return tuple(items.name(number) for number in bad)


# -- sources ----------------------------------------------------------------------------------------------------------


def _shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of the folder ``data`` in it, where Hugging Face's repositories have them.

    Raises:
        DataError: they are parts of different purpose, which would train on test images.
    """
    shards = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    begun = {re.split(r"[-_.]", shard.name)[0].lower() for shard in shards}
    purposes = [purpose for purpose in _PURPOSES if purpose in begun]
    if len(purposes) > 1:
        raise DataError(
            f"data must not mix images to train and to test on, but '{folder}' has {', '.join(purposes)} files; name those to train on, "
            f"for example '{shards[0].parent / f'{purposes[0]}*.parquet'}', and others as test_data"
        )
    return shards


def _folder(path: Path) -> tuple[Items, Tensor, tuple[str, ...]]:
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    called = {folder.name.lower(): folder.name for folder in classes}
    purposes = [called[purpose] for purpose in _PURPOSES if purpose in called]
    if len(purposes) > 1 and len(purposes) == len(classes):
        raise DataError(
            f"the folders of a data set must be its classes, but those of '{path}' are {', '.join(purposes)}; name one of them as data, "
            f"for example '{path / purposes[0]}', and another as test_data"
        )
    found = {folder.name: sorted(file for file in folder.rglob("*") if file.suffix.lower() in _EXTENSIONS) for folder in classes}
    if not classes or not any(found.values()):
        raise DataError(
            f"a folder of images must have one folder a class with {', '.join(_EXTENSIONS)} files, but '{path}' has {len(classes)} folders "
            "and no images in them; check the path"
        )
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(f"each class must have images, but '{path}' has none in {', '.join(empty[:_NAMED])}; add some or remove the folder")
    if len(classes) < 2:
        raise DataError(f"a data set must show at least 2 classes, but '{path}' has the one folder '{classes[0].name}'; add another class")
    files = [file for images in found.values() for file in images]
    labels = [label for label, images in enumerate(found.values()) for _ in images]
    return FileItems(files), torch.tensor(labels), tuple(found)


def _parquet(paths: Sequence[Path], spec: str) -> tuple[Items, Tensor, tuple[str, ...]]:
    try:
        table = pa.concat_tables([pq.read_table(path, memory_map=True) for path in paths])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"'{spec}' must be a Parquet file of images, but {reason}; give such a file or a folder") from error
    if not len(table):
        raise DataError(f"a data set must have images, but '{spec}' has no rows; check where it was written")
    image, label = _column(table, _IMAGE_COLUMNS, spec), _column(table, _LABEL_COLUMNS, spec)
    column = table.column(image)
    if pa.types.is_struct(column.type):
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"the column {image} of '{spec}' must hold encoded images, but holds {column.type}; write their bytes")
    labels = table.column(label)
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise DataError(
            f"the column {label} of '{spec}' must hold a whole number in every row, but holds {labels.type} with {labels.null_count} "
            "missing; give each image its class index"
        )
    values = torch.from_numpy(labels.to_numpy().astype(np.int64))
    names = _class_names(table.schema.metadata or {}, label) or tuple(str(number) for number in range(max(int(values.max()) + 1, 1)))
    return ParquetItems(column, spec), values, names


def _column(table: pa.Table, wanted: Sequence[str], spec: str) -> str:
    for name in wanted:
        if name in table.column_names:
            return name
    raise DataError(f"'{spec}' must have a column {' or '.join(wanted)}, but has {', '.join(table.column_names)}; rename one")


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """The names that Hugging Face's datasets writes into the schema; None if there are none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names))


def _dataset(spec: str) -> tuple[Items, Tensor, tuple[str, ...]]:
    module, _, attribute = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(f"'{spec}' must name a dataset as module:attribute, but {error}; check both names and the Python path") from error
    dataset: Any = found() if isinstance(found, type) or not hasattr(found, "__getitem__") else found
    try:
        count = len(dataset)
        labels = torch.tensor([int(label) for label in _labels(dataset, count)], dtype=torch.int64)
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"the items of '{spec}' must be (image, label) and counted by len(), but {error}; wrap the dataset so") from error
    if not count:
        raise DataError(f"a data set must have images, but '{spec}' has none; check where it reads from")
    names = getattr(dataset, "classes", None)
    known = tuple(map(str, names)) if names is not None else tuple(str(number) for number in range(max(int(labels.max()) + 1, 1)))
    return DatasetItems(dataset, spec), labels, known


def _labels(dataset: Any, count: int) -> Sequence[Any]:
    """By the list that common datasets keep, which spares reading every image."""
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == count:
        return list(targets)
    return [dataset[number][1] for number in range(count)]
