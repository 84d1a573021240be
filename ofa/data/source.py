"""What a data set is made of before its images are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ofa.data.items import Items
from ofa.data.left_out import LeftOut
from ofa.errors import DataError

__all__ = ["PURPOSES", "Source", "by_name", "numbered", "some", "whole_numbers"]

PURPOSES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
"""What files and folders are called whose images are not of one class but for one purpose."""
_NAMED = 3
"""How many of many an error names."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Items and what is known of them unseen.

    Attributes:
        items: N of them.
        labels: int64 [N], indices into ``class_names``; None if they come with the items.
        class_names: one name a class; None numbers them.
        left_out: files that are no items.
        folders: whether each class is a folder, which is none without images.
    """

    items: Items
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    left_out: tuple[LeftOut, ...] = ()
    folders: bool = False


def numbered(labels: Tensor) -> tuple[str, ...]:
    """The names of classes that are known by number alone."""
    return tuple(str(number) for number in range(max(int(labels.max()) + 1, 1)))


def whole_numbers(labels: Iterable[Any], of: str) -> Tensor:
    """Labels that a dataset gives, as int64 [N].

    Raises:
        DataError: some are no whole numbers.
    """
    try:
        return torch.tensor([_whole(label) for label in labels], dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"{of} must be (image, label) with a class index, but {error}; give whole numbers") from error


def _whole(label: Any) -> int:
    number = int(label)
    if number != label:
        raise ValueError(f"one label is {label!r}")
    return number


def by_name(labels: Tensor, names: Sequence[str], classes: Sequence[str], spec: str) -> Tensor:
    """Labels as indices into ``classes`` instead of ``names``.

    Raises:
        DataError: names that are none of the classes, or labels that have no name.
    """
    strange = [name for name in names if name not in classes]
    if strange:
        raise DataError(
            f"the classes of '{spec}' must be among {some(classes)}, but {some(strange)} {'is' if len(strange) == 1 else 'are'} not; name "
            "the same classes, or remove the images of the others"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        return labels  # which is refused where all labels are
    place = {name: index for index, name in enumerate(classes)}
    return torch.tensor([place[name] for name in names], dtype=torch.int64)[labels]


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:_NAMED]) + (f" ... ({len(names)} in all)" if len(names) > _NAMED else "")
