"""What a data set is made of before its images are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ofa.data.items import Items
from ofa.data.labels import renumbered
from ofa.data.left_out import LeftOut
from ofa.errors import DataError

__all__ = ["PURPOSES", "Source", "by_name", "numbered", "some"]

PURPOSES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
"""What files and folders are called whose images are not of one class but for one purpose."""
_NAMED = 3
"""How many of many an error names."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Items and what is known of them unseen.

    Attributes:
        items: N of them.
        labels: int64 [N], indices into ``class_names``, or bool [N, classes]; None if they come with the items.
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
    return tuple(str(number) for number in range(labels.shape[1] if labels.ndim == 2 else max(int(labels.max()) + 1, 1)))


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
    if labels.ndim == 1 and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        return labels  # which is refused where all labels are
    place = {name: index for index, name in enumerate(classes)}
    return renumbered(labels, [place[name] for name in names], len(classes))


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:_NAMED]) + (f" ... ({len(names)} in all)" if len(names) > _NAMED else "")
