"""The two kinds of labels: one class for each image (int64 [N]), or any number of classes (bool [N, K]).

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.errors import DataError

__all__ = ["as_labels", "check_labels", "counts_by_class", "folded", "label_sets", "members_of", "renumbered", "strata"]

Integers = np.ndarray[Any, np.dtype[np.int64]]


def check_labels(labels: Tensor, class_names: Sequence[str], *, least: int = 2) -> None:
    """Check labels.

    Args:
        labels: labels of N images, int64 [N] or bool [N, K].
        class_names: one name for each class.
        least: how many classes must be present.

    Raises:
        DataError: a label is not a class, or too few classes are present.
    """
    if labels.ndim == 2:
        if labels.dtype != torch.bool or labels.shape[1] != len(class_names):
            raise DataError(
                f"labels of several classes an image must be bool of shape [{len(labels)}, {len(class_names)}], but are {labels.dtype} of "
                f"shape {list(labels.shape)}; give each image a row with one value for each class"
            )
        if int(labels.any(0).sum()) < least:
            raise DataError(f"a data set must show at least {least} classes, but {int(labels.any(0).sum())} have images; add others")
        return
    wrong = torch.nonzero((labels < 0) | (labels >= len(class_names))).flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"labels must lie in 0..{len(class_names) - 1} for {len(class_names)} classes, but {len(wrong)} do not, "
            f"first {int(labels[first])} at image {first}; name every class or correct the labels"
        )
    if len(torch.unique(labels)) < least:
        only = class_names[int(labels[0])]
        raise DataError(f"a data set must show at least 2 classes, but all {len(labels)} images are of '{only}'; add another class")


def as_labels(values: Iterable[Any], of: str) -> Tensor:
    """Convert a dataset's labels to a tensor.

    Args:
        values: for each image a class index, a list or tuple of class indices, or an array of 0 and 1 with one value for each class.
        of: name of the dataset's items in errors.

    Returns:
        int64 [N], or bool [N, K].

    Raises:
        DataError: labels are anything else, or of several kinds.
    """
    found = list(values)
    try:
        if found and all(isinstance(value, list | tuple) for value in found):
            flat = _whole_numbers(index for value in found for index in value)
            lengths = torch.tensor([len(value) for value in found], dtype=torch.int64)
            return folded(flat, lengths, int(flat.max()) + 1 if len(flat) else 1)
        if found and all(getattr(value, "ndim", 0) == 1 for value in found):
            rows = torch.from_numpy(np.stack([np.asarray(value) for value in found]))
            if not ((rows == 0) | (rows == 1)).all():
                raise ValueError("an array of labels has other values than 0 and 1")
            return rows.bool()
        return _whole_numbers(found)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"{of} must be (image, label) with a class index, but {error}; give whole numbers, or lists of them") from error


def _whole_numbers(labels: Iterable[Any]) -> Tensor:
    return torch.tensor([_whole(label) for label in labels], dtype=torch.int64)


def _whole(label: Any) -> int:
    number = int(label)
    if number != label:
        raise ValueError(f"one label is {label!r}")
    return number


def folded(flat: Tensor, lengths: Tensor, num_classes: int) -> Tensor:
    """Convert lists of classes to bool [N, K].

    Args:
        flat: int64, the classes of all images, concatenated.
        lengths: int64 [N], number of classes of each image.
        num_classes: K.

    Raises:
        DataError: a class that is not in 0..K-1.
    """
    wrong = flat[(flat < 0) | (flat >= num_classes)]
    if len(wrong):
        raise DataError(
            f"labels must lie in 0..{num_classes - 1} for {num_classes} classes, but {len(wrong)} do not, first {int(wrong[0])}; name "
            "every class or correct the labels"
        )
    labels = torch.zeros(len(lengths), num_classes, dtype=torch.bool)
    labels[torch.arange(len(lengths)).repeat_interleave(lengths), flat] = True
    return labels


def counts_by_class(labels: Tensor, num_classes: int) -> Tensor:
    """int64 [K], number of images of each class."""
    return torch.bincount(labels, minlength=num_classes) if labels.ndim == 1 else labels.sum(0)


def members_of(labels: Tensor, number: int) -> Tensor:
    """int64, indices of the images of a class."""
    return torch.nonzero(labels == number if labels.ndim == 1 else labels[:, number]).flatten()


def renumbered(labels: Tensor, numbers: Sequence[int], num_classes: int) -> Tensor:
    """Labels with other numbers of the classes.

    Args:
        labels: labels of N images.
        numbers: the new number of each class.
        num_classes: number of classes after that.
    """
    if labels.ndim == 1:
        return torch.tensor(numbers, dtype=torch.int64)[labels]
    moved = torch.zeros(len(labels), num_classes, dtype=torch.bool)
    moved[:, torch.tensor(numbers, dtype=torch.int64)] = labels
    return moved


def strata(labels: Tensor) -> Tensor:
    """int64 [N], the stratum of each image for splits and samples: its class, the rarest of several, or K for none."""
    if labels.ndim == 1:
        return labels
    rarity = labels.sum(0).argsort(stable=True)
    ranked = labels[:, rarity]
    return torch.where(ranked.any(1), rarity[ranked.int().argmax(1)], labels.shape[1])


def label_sets(labels: Tensor | np.ndarray[Any, Any]) -> tuple[list[tuple[int, ...]], Integers]:
    """The distinct sets of classes, and int64 [N], the number of each image's set (for one class per image, the class itself)."""
    array = np.asarray(labels)
    if array.ndim == 1:
        return [(number,) for number in range(int(array.max(initial=-1)) + 1)], array
    rows, which = np.unique(array, axis=0, return_inverse=True)
    return [tuple(np.flatnonzero(row).tolist()) for row in rows], which.ravel()
