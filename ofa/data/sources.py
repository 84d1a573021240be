"""Where data sets come from: one line of a recipe names a set, a Parquet file, a folder, or a dataset in code."""

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
    """
    from sklearn.datasets import load_digits  # takes a second to import

    if channels not in (1, 3, 4):
        raise DataError(f"the digits can be read with 1, 3 or 4 channels, but channels is {channels}; choose a space of so many")
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
"""Named sets: functions that take the number of channels and return images in memory, or a source of items that lie elsewhere."""


def data_names() -> tuple[str, ...]:
    """The names of sets that ``load_data`` knows."""
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
    """The data set that a recipe names.

    Every item is looked at once, and decoded whole, so that an image that cannot be read is known before anyone trains.

    Args:
        spec: the name of a set (``digits``, or one that is registered in ``DATA``); a folder with one folder of images a class; a
            Parquet file, or a folder of them, in the layouts of Hugging Face (a column ``image`` of encoded bytes or paths, and
            ``label``, or lists of labels); or ``package.module:attribute``, a ``torch.utils.data.Dataset`` of (image, label) or of
            dictionaries, or a function without arguments that makes one; a label is a class index, or of images of several classes a list
            of them or an array of 0 and 1. Several Parquet files of a folder can be named by a pattern, ``photos/train-*.parquet``.
        unreadable: what is done with images that cannot be read: ``refuse`` the set, or ``skip`` and name them.
        memory: bytes up to which images of one size are kept in memory, decoded.
        channels: of the images: 1 is grey, 3 RGB, 4 RGBA; any other number is read from arrays with that many.
        rule: how images are read, as it was found before; its channels count. None cuts the middle part.
        classes: names of the classes in the order of the labels, all that there may be; some may be missing. None takes those there are,
            of which there must be at least two with images.
        known: keys of images that were decoded whole earlier, of which the headers are enough now.
        most: about how many items are looked at, at even distances, in place of all; None is all.
        progress: told of the images that were looked at.

    Raises:
        DataError: there is no such set, or it cannot be used.
        TrustError: only a file says ``package.module:attribute``.
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
    """All that is known of a data set's images when each was looked at, those that cannot be read included; arguments as of ``load_data``.

    Raises:
        DataError: there is no such set, or nothing in it can be images.
    """
    rule = rule or ImageRule(channels=channels)
    source = _source(spec, rule.channels)
    if isinstance(source, ImageData):
        return Scan.of_images(spec, source, rule, classes)
    if most is not None and spec not in DATA:
        source = sampled(source, most)
    return scan_source(source, spec, rule=rule, classes=classes, known=known, memory=memory, progress=progress)


def count_items(spec: str) -> int:
    """How many items a data set lists, be they readable or not: none is looked at.

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
    except Exception as error:  # a module of the user's may fail in any way
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
    """The list of labels that common datasets keep; None if there is none."""
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != count:
        return None
    return as_labels(targets, f"the items of '{spec}'")


def _names(dataset: Any) -> tuple[str, ...] | None:
    """The names of classes that a dataset of torchvision or of Hugging Face knows."""
    names = getattr(dataset, "classes", None)
    if names is None:
        features = getattr(dataset, "features", None)
        kinds = (
            [getattr(features[name], "feature", features[name]) for name in LABEL_NAMES if name in features] if features is not None else []
        )
        found = [getattr(kind, "names", None) for kind in kinds]
        names = next((each for each in found if each is not None), None)
    return None if names is None else tuple(map(str, names))
