"""The source of a data set, before its images are scanned."""

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
"""Names of files and folders that hold a part of a data set, rather than a class."""
_NAMED = 3
"""How many names an error lists."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Items of a data set, with labels and classes as far as they are known before a scan.

    Attributes:
        items: the N items.
        labels: int64 [N], indices into ``class_names``, or bool [N, classes]; None if they come with the items.
        class_names: one name for each class; None numbers the classes.
        left_out: files that are no items.
        folders: whether each class is a folder; a folder without images is not a class.
    """

    items: Items
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    left_out: tuple[LeftOut, ...] = ()
    folders: bool = False


def numbered(labels: Tensor) -> tuple[str, ...]:
    """Names for classes that have only numbers."""
    return tuple(str(number) for number in range(labels.shape[1] if labels.ndim == 2 else max(int(labels.max()) + 1, 1)))


def by_name(labels: Tensor, names: Sequence[str], classes: Sequence[str], spec: str) -> Tensor:
    """Convert labels from indices into ``names`` to indices into ``classes``.

    Raises:
        DataError: a name is not among the classes.
    """
    strange = [name for name in names if name not in classes]
    if strange:
        raise DataError(
            f"the classes of '{spec}' must be among {some(classes)}, but {some(strange)} {'is' if len(strange) == 1 else 'are'} not; name "
            "the same classes, or remove the images of the others"
        )
    if labels.ndim == 1 and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        return labels  # ``check_labels`` refuses them later
    place = {name: index for index, name in enumerate(classes)}
    return renumbered(labels, [place[name] for name in names], len(classes))


def some(names: Sequence[str]) -> str:
    """The first few of many names, as a text."""
    return ", ".join(names[:_NAMED]) + (f" ... ({len(names)} in all)" if len(names) > _NAMED else "")
