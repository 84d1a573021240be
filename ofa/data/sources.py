"""Sources of data sets: a recipe names a registered set, a Parquet file, a folder, or a dataset in code."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.data.folders import folder_source
from ofa.data.images import ImageData, Images
from ofa.data.items import LABEL_NAMES, DatasetItems, Unreadable
from ofa.data.labels import as_labels
from ofa.data.parquet import parquet_source, shards_of
from ofa.data.rule import ImageRule
from ofa.data.sampled import sampled
from ofa.data.scanned import MEMORY, Scan, scan_source
from ofa.data.source import Source
from ofa.errors import DataError, TrustError, nearest
from ofa.progress import Progress, silent
from ofa.reasons import reason_of
from ofa.registry import Registry, import_attribute

__all__ = ["DATA", "count_items", "data_names", "digits", "load_data", "scan_data"]


def digits(channels: int = 3) -> ImageData:
    """The 1797 handwritten digits that come with scikit-learn: real scans of 8x8 pixels in 17 grey levels.

    The source is the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).

    Args:
        channels: 1, 3 (the grey channel repeated) or 4 (with an opaque alpha channel).

    Returns:
        The images, in memory.

    Raises:
        DataError: another number of channels.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    if channels not in (1, 3, 4):
        raise DataError(f"the digits can be read with 1, 3 or 4 channels, but channels is {channels}; choose a space with 1, 3 or 4")
    scans = load_digits()
    grey = torch.from_numpy(np.round(scans.images * (255 / 16)).astype(np.uint8))[:, None]
    colour = grey.repeat(1, 3, 1, 1)
    labels, names = torch.from_numpy(scans.target.astype(np.int64)), tuple(str(name) for name in scans.target_names)
    data = ImageData(images=colour, labels=labels, class_names=names)
    if channels == 3:
        return data
    images = grey if channels == 1 else torch.cat([colour, torch.full_like(grey, 255)], 1)
    return ImageData(images=images, labels=labels, class_names=names, known_keys=data.keys)


DATA: Registry[Callable[[int], ImageData | Source]] = Registry("data set", group="ofa.data", error=DataError, entries={"digits": digits})
"""Registered sets: functions that take the number of channels, and return images in memory or a source of items."""


def data_names() -> tuple[str, ...]:
    """The names of registered sets."""
    return tuple(sorted(DATA))


def load_data(
    spec: str,
    *,
    unreadable: Unreadable = "refuse",
    memory: int = MEMORY,
    channels: int = 3,
    rule: ImageRule | None = None,
    classes: Sequence[str] | None = None,
    known: Container[bytes] = (),
    most: int | None = None,
    progress: Progress = silent,
) -> Images:
    """Load the data set that a recipe names.

    Every item is scanned once, and fully decoded, so that unreadable images are known before training.

    Args:
        spec: one of the following. (1) The name of a set: ``digits``, or a name registered in ``DATA``. (2) A folder with one folder of
            images for each class. (3) A Parquet file, a folder of them, or a pattern such as ``photos/train-*.parquet``, in the layouts of
            Hugging Face: a column ``image`` of encoded bytes or paths, and a column ``label`` of labels or lists of labels.
            (4) ``package.module:attribute``: a ``torch.utils.data.Dataset`` of (image, label) or of dictionaries, or a function without
            arguments that returns one. Its labels are class indices; for images with several classes, lists of them or arrays of 0 and 1.
        unreadable: what happens to unreadable images: ``refuse`` the set, or ``skip`` and name them.
        memory: limit in bytes up to which images of one size are kept decoded in memory.
        channels: channels of the images: 1 is grey, 3 RGB, 4 RGBA; any other number is read from arrays with that many.
        rule: how images are read, if it is known already; its channels then count. None is a central crop.
        classes: names of all classes that may occur, in the order of the labels; some may be missing. None takes the classes of the set, of
            which at least two must have images.
        known: keys of images that were fully decoded before; only their headers are read now.
        most: approximate number of items to scan, evenly spaced; None is all.
        progress: told how many images have been scanned.

    Returns:
        The images.

    Raises:
        DataError: there is no such set, or it cannot be used.
        TrustError: a ``package.module:attribute`` comes only from a file.
    """
    scan = scan_data(spec, channels=channels, rule=rule, classes=classes, known=known, memory=memory, most=most, progress=progress)
    return scan.images(unreadable=unreadable)


def scan_data(
    spec: str,
    *,
    channels: int = 3,
    rule: ImageRule | None = None,
    classes: Sequence[str] | None = None,
    known: Container[bytes] = (),
    memory: int = MEMORY,
    most: int | None = None,
    progress: Progress = silent,
) -> Scan:
    """Scan a data set: facts about each image, including unreadable ones. Arguments are as of ``load_data``.

    Returns:
        The scan.

    Raises:
        DataError: there is no such set, or it has nothing that could be images.
    """
    rule = rule or ImageRule(channels=channels)
    source = _source(spec, rule.channels)
    if isinstance(source, ImageData):
        return Scan.of_images(spec, source, rule, classes)
    if most is not None and spec not in DATA:
        source = sampled(source, most)
    return scan_source(source, spec, rule=rule, classes=classes, known=known, memory=memory, progress=progress)


def count_items(spec: str) -> int:
    """The number of items of a data set, readable or not; none of them is read.

    Raises:
        DataError: there is no such set.
    """
    source = _source(spec, 3)
    return len(source if isinstance(source, ImageData) else source.items)


def _source(spec: str, channels: int) -> ImageData | Source:
    if spec in DATA:
        return _named_source(spec, channels)
    path = Path(spec).expanduser()
    if spec and os.path.isdir(path):
        shards = shards_of(path)
        return parquet_source(shards, spec) if shards else folder_source(path)
    if os.path.isfile(path):
        return parquet_source([path], spec)
    if "*" in path.name and (shards := sorted(path.parent.glob(path.name))):
        return parquet_source(shards, spec)
    if ":" in spec and "/" not in spec:
        return _dataset_source(spec)
    raise DataError(
        f"data must be a Parquet file, a folder, module:attribute or the name of a set, but '{spec}' is none of them; "
        f"check the path, or {nearest(spec, DATA)}"
    )


def _named_source(spec: str, channels: int) -> ImageData | Source:
    made = DATA.get(spec)(channels)
    if not isinstance(made, ImageData | Source):
        raise DataError(
            f"a registered data set must be a function that returns ImageData or a Source, but '{spec}' returns {type(made).__name__}; "
            "correct the function"
        )
    return made


def _dataset_source(spec: str) -> Source:
    try:
        found: Any = import_attribute(spec)
        dataset = found() if isinstance(found, type) or not hasattr(found, "__getitem__") else found
    except TrustError:
        raise
    except Exception as error:  # the user's module may raise anything
        raise DataError(
            f"'{spec}' must name a dataset as module:attribute, but: {reason_of(error)}; check both names and the Python path"
        ) from error
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(f"the items of '{spec}' must be (image, label) and counted by len(), but {error}; wrap the dataset so") from error
    if not count:
        raise DataError(f"a data set must have images, but '{spec}' has none; check where it reads from")
    return Source(items=DatasetItems(dataset, spec), labels=_targets(dataset, count, spec), class_names=_names(dataset))


def _targets(dataset: Any, count: int, spec: str) -> Tensor | None:
    """The attribute ``targets`` of common datasets, as labels; None without it."""
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != count:
        return None
    return as_labels(targets, f"the items of '{spec}'")


def _names(dataset: Any) -> tuple[str, ...] | None:
    """The class names of a dataset of torchvision or Hugging Face; None without them."""
    names = getattr(dataset, "classes", None)
    if names is None:
        features = getattr(dataset, "features", None)
        kinds = (
            [getattr(features[name], "feature", features[name]) for name in LABEL_NAMES if name in features] if features is not None else []
        )
        found = [getattr(kind, "names", None) for kind in kinds]
        names = next((each for each in found if each is not None), None)
    return None if names is None else tuple(map(str, names))
