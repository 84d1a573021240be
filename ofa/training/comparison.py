"""Compares one source of a run's images, as it is now, with the run's record of it.

Shapes: N recorded images of the source, P present ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.arrays import Integers
from ofa.data import Images
from ofa.data.labels import label_sets, renumbered
from ofa.data.splitting import whole_keys
from ofa.errors import DataError
from ofa.training.matching import Match, match_images, parts_of_new
from ofa.training.record import PARTS, Bytes, DataRecord, Labels

__all__ = ["Comparison"]

_TEST, _UNUSED = PARTS.index("test"), PARTS.index("unused")
_NAMED = 5
"""How many classes an error names."""


class Comparison:
    """The images of one data source of a recipe, compared with the record.

    Raises:
        DataError: the images are another set, or have other classes.
    """

    def __init__(self, record: DataRecord, is_of_source_N: Any, images: Images, line: str, *, tests: bool = False) -> None:
        self.names, self.line, self.tests = record.facts.class_names, line, tests
        self.parts_N, labels_N, keys_N = record.parts[is_of_source_N], record.labels[is_of_source_N], record.keys[is_of_source_N]
        self.keys_P: Bytes = images.keys.numpy()
        labels_P = self._numbered(images)
        alike_N, alike_P = _alike(labels_N, labels_P, line)
        self.match = match_images(keys_N, alike_N, self.keys_P, alike_P)
        self._check_same_set()
        self._check_same_classes(images, labels_N, labels_P)
        self.reordered = [name for name in self.names if name in images.class_names] != list(images.class_names)
        self.images = _renumbered(images, labels_P, self.names)
        self.parts_P = self._parts(record)

    def _numbered(self, images: Images) -> Labels:
        """The labels by the recorded class numbers; unknown classes get numbers beyond them."""
        known = {name: number for number, name in enumerate(self.names)}
        numbers = [known.get(name, len(known) + position) for position, name in enumerate(images.class_names)]
        labels: Labels = renumbered(images.labels.cpu(), numbers, max(len(known), *(number + 1 for number in numbers))).numpy()
        return labels

    def _check_same_set(self) -> None:
        recorded, known = len(self.parts_N), int((self.match.present_R >= 0).sum())
        if 2 * known < recorded:
            raise DataError(
                f"the data of a run must be what it began with, but '{self.line}' has {known:,} of its {recorded:,} images (by content: "
                f"a re-encoded image is another); say where they are with {'--test-data' if self.tests else '--data'} PATH, or "
                "train a new run"
            )

    def _check_same_classes(self, images: Images, labels_N: Labels, labels_P: Labels) -> None:
        names = [*self.names, *(images.class_names)]  # numbers beyond the recorded classes index the images' own
        # Renamed classes are guessed only where each image has one class.
        moved = _renamed(self.match, labels_N, labels_P, names) if labels_N.ndim == 1 else {}
        now, before = set(images.class_names), set(self.names)
        missing = [] if self.tests else [name for name in self.names if name not in now]
        extra = [name for name in images.class_names if name not in before]
        if not missing and not extra and not moved:
            return
        found = [f"lacks {_listed(missing)}"] * bool(missing) + [f"has {_listed(extra)} besides"] * bool(extra)
        guess = ", ".join(f"the images of '{old}' are in '{new}' now" for old, new in list(moved.items())[:_NAMED])
        told = " and ".join(found) or "has their images under other names"
        raise DataError(
            f"the data of a run must have the run's classes, but '{self.line}' {told}{f' ({guess})' if guess else ''}; name the classes "
            "as they were, or train a new run"
        )

    def _parts(self, record: DataRecord) -> Integers:
        """int64 [P], the part of each image."""
        if self.tests:
            return np.full(len(self.keys_P), _TEST)
        fractions = record.facts.fractions
        used = fractions if fractions[2] else fractions[:2]
        new_P = parts_of_new(self.keys_P, used)
        new_P[new_P == len(used)] = _UNUSED
        known_P = self.match.known_P
        return np.where(known_P >= 0, self.parts_N[known_P], new_P)

    def chosen(self, part: int, *, exact: bool) -> Tensor:
        """int64, indices of a part's images: recorded ones in the record's order, then new ones in the order of their keys."""
        present_N = self.match.present_R[self.parts_N == part]
        known = present_N[present_N >= 0]
        new = np.flatnonzero(self.match.added_P & (self.parts_P == part)) if not exact else np.zeros(0, np.int64)
        order = np.argsort(whole_keys(self.keys_P[new]), kind="stable")
        return torch.from_numpy(np.concatenate([known, new[order]]))

    def check_exact(self) -> None:
        """Raise DataError unless all images to train and to select on are there and of their class."""
        used_N = self.parts_N < _TEST
        gone, other = int((used_N & (self.match.present_R < 0)).sum()), int((used_N & self.match.relabelled_R).sum())
        if gone or other:
            raise DataError(
                f"a run must be resumed with the images that it began with, but of its training and selection images {gone:,} are gone and "
                f"{other:,} are of another class in '{self.line}'; put them back, or train a new run"
            )

    @property
    def removed(self) -> Counter[str]:
        """Images that are gone, by part."""
        return _by_part(self.parts_N[self.match.present_R < 0])

    @property
    def relabelled(self) -> Counter[str]:
        """Images of another class, by part."""
        return _by_part(self.parts_N[self.match.relabelled_R])

    @property
    def added(self) -> Counter[str]:
        """New images, by part."""
        return _by_part(self.parts_P[self.match.added_P])


def _renamed(match: Match, labels_N: Integers, labels_P: Integers, names: Sequence[str]) -> dict[str, str]:
    """Maps a recorded class to the other class that most of its images are in now; classes without one are left out."""
    there = match.present_R >= 0
    before, now = labels_N[there], labels_P[match.present_R[there]]
    pairs, counts = np.unique(np.stack([before, now]), axis=1, return_counts=True)
    total = np.bincount(labels_N)
    return {
        names[old]: names[new]
        for (old, new), count in zip(pairs.T.tolist(), counts.tolist(), strict=True)
        if old != new and 2 * count > total[old]
    }


def _alike(labels_N: Labels, labels_P: Labels, line: str) -> tuple[Integers, Integers]:
    """One number for each distinct label or set of labels; DataError if one side has single labels and the other sets."""
    if labels_N.ndim != labels_P.ndim:
        kinds = [f"{'one class' if labels.ndim == 1 else 'a list of classes'} an image" for labels in (labels_N, labels_P)]
        raise DataError(f"the data of a run must have {kinds[0]} as when it began, but '{line}' has {kinds[1]}; name the images of the run")
    if labels_N.ndim == 1:
        return labels_N, labels_P
    width = max(labels_N.shape[1], labels_P.shape[1])
    both = [np.pad(labels, ((0, 0), (0, width - labels.shape[1]))) for labels in (labels_N, labels_P)]
    which = label_sets(np.concatenate(both))[1]
    return which[: len(labels_N)], which[len(labels_N) :]


def _renumbered(images: Images, labels_P: Labels, names: tuple[str, ...]) -> Images:
    """The same images, labelled by the recorded class numbers."""
    if images.class_names == names:
        return images
    changed: Any = images  # every kind of images is a dataclass with these two fields
    labels = torch.from_numpy(labels_P if labels_P.ndim == 1 else np.ascontiguousarray(labels_P[:, : len(names)]))
    return replace(changed, labels=labels, class_names=names)  # type: ignore[no-any-return]


def _by_part(parts: Integers) -> Counter[str]:
    return Counter({PARTS[number]: count for number, count in enumerate(np.bincount(parts, minlength=len(PARTS)).tolist()) if count})


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
