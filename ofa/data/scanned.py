"""The result of scanning a source, and the set of images made from it.

Shapes: N images of a set, C channels, H W pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ofa.data.encoded import EncodedImages
from ofa.data.folders import no_classes
from ofa.data.images import KEY_BYTES, ImageData, Images
from ofa.data.items import Items, Unreadable
from ofa.data.labels import as_labels
from ofa.data.left_out import LeftOut
from ofa.data.reading import Array, has_white, picture_from, picture_of, pixels_of
from ofa.data.rule import ImageRule
from ofa.data.scan import ImageFacts, Looker, Seen, rule_for
from ofa.data.source import Source, by_name, numbered, some
from ofa.errors import DataError
from ofa.progress import Progress

__all__ = ["MEMORY", "Scan", "scan_source"]

MEMORY = 2 * 2**30
"""Default limit of decoded images in memory, in bytes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """Result of scanning every image of a source.

    Attributes:
        spec: name of the source.
        facts: facts about the N readable images.
        labels: int64 [N], indices into ``class_names``, or bool [N, classes].
        class_names: one name for each class, in the order of the logits.
        left_out: files, rows and items that are left out, with reasons.
        rule: how the images are read, with the whites that were found.
        least_classes: how many classes must have images.
        items: items of the source; None if all images are in ``pixels``.
        rows: int64 [N], numbers of the images' items.
        pixels: uint8 [N, C, H, W], all images decoded, if they have one size and fit into the allowed memory.
    """

    spec: str
    facts: tuple[ImageFacts, ...]
    labels: Tensor
    class_names: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    rule: ImageRule
    least_classes: int
    items: Items | None
    rows: Tensor
    pixels: Tensor | None

    @classmethod
    def of_images(cls, spec: str, data: ImageData, rule: ImageRule, classes: Sequence[str] | None) -> Scan:
        """The scan of images in memory."""
        height, width = data.images.shape[2:]
        mode, size = {1: "L", 3: "RGB", 4: "RGBA"}[rule.channels], data.images[0].numel()
        facts = tuple(
            ImageFacts(f"{spec}[{number}]", key.numpy().tobytes(), width, height, mode, "", size) for number, key in enumerate(data.keys)
        )
        labels = data.labels if classes is None else by_name(data.labels, data.class_names, classes, spec)
        return cls(
            spec=spec,
            facts=facts,
            labels=labels,
            class_names=data.class_names if classes is None else tuple(classes),
            left_out=(),
            rule=rule,
            least_classes=2 if classes is None else 1,
            items=None,
            rows=torch.arange(len(labels)),
            pixels=data.images,
        )

    @property
    def keys(self) -> Tensor:
        """uint8 [N, 16], a digest of each image's content."""
        joined = bytearray().join(each.key for each in self.facts)
        return torch.frombuffer(joined, dtype=torch.uint8).view(-1, KEY_BYTES) if joined else torch.empty(0, KEY_BYTES, dtype=torch.uint8)

    def images(self, *, unreadable: Unreadable = "refuse") -> Images:
        """The set of images: in memory if they could be kept there, otherwise decoded when they are needed.

        Args:
            unreadable: what happens to unreadable images, found now or later: ``refuse`` or ``skip``.

        Returns:
            The set.

        Raises:
            DataError: there are unreadable images and they are refused, or there are no readable ones.
        """
        bad = [each for each in self.left_out if each.kind == "unreadable"]
        if bad and (unreadable == "refuse" or not self.facts):
            shown = some([f"{each.name} ({each.reason})" for each in bad])
            raise DataError(
                f"every image must be readable, but {len(bad)} of {len(bad) + len(self.facts)} are not: {shown}; remove them or set "
                'unreadable = "skip"'
            )
        if not self.facts:
            raise DataError(f"a data set must have images, but '{self.spec}' has none; check the path")
        if self.pixels is not None:
            return ImageData(
                images=self.pixels,
                labels=self.labels,
                class_names=self.class_names,
                left_out=self.left_out,
                known_keys=self.keys,
                known_rule=self.rule,
                least_classes=self.least_classes,
            )
        assert self.items is not None
        return EncodedImages(
            items=self.items,
            rows=self.rows,
            labels=self.labels,
            class_names=self.class_names,
            keys=self.keys,
            rule=self.rule,
            unreadable=unreadable,
            left_out=self.left_out,
            least_classes=self.least_classes,
        )


def scan_source(
    source: Source,
    spec: str,
    *,
    rule: ImageRule,
    classes: Sequence[str] | None,
    known: Container[bytes],
    memory: int,
    progress: Progress,
) -> Scan:
    """Scan all items of a source; arguments are as of ``load_data``.

    Raises:
        DataError: the source has no images, or other classes than required.
    """
    memo = _Memory(len(source.items), rule, memory)
    looker = Looker(source.items, rule, memo, known, labelled=source.labels is None)
    seen = list(looker.look(progress))
    left_out = source.left_out + tuple(each.found for each in seen if isinstance(each.found, LeftOut))
    good = [number for number, each in enumerate(seen) if isinstance(each.found, ImageFacts)]
    rows = torch.tensor(good, dtype=torch.int64)
    facts = tuple(each.found for each in seen if isinstance(each.found, ImageFacts))
    rule = rule_for(rule, facts)
    labels, names, left_out = _classes(source, seen, rows, left_out, classes, spec)
    return Scan(
        spec=spec,
        facts=facts,
        labels=labels,
        class_names=names,
        left_out=left_out,
        rule=rule,
        least_classes=2 if classes is None else 1,
        items=source.items,
        rows=rows,
        pixels=memo.pixels(rows, source.items, rule),
    )


def _classes(
    source: Source, seen: Sequence[Seen], rows: Tensor, left_out: tuple[LeftOut, ...], classes: Sequence[str] | None, spec: str
) -> tuple[Tensor, tuple[str, ...], tuple[LeftOut, ...]]:
    """The labels of readable images, the names of the classes, and the final list of files that are left out."""
    labels, names = source.labels, source.class_names
    kept = as_labels((seen[row].label for row in rows.tolist()), f"the items of '{spec}'") if labels is None else labels[rows]
    if names is None:
        every = labels if labels is not None else kept
        names = numbered(every) if len(every) else ()
    if source.folders and labels is not None:
        empty = _without_images(labels, seen, len(names))
        if empty and classes is None:
            _refuse_empty(spec, [names[label] for label in empty], len(names))
        left_out += tuple(LeftOut(str(names[label]), "is a folder without images", "no class") for label in empty)
        if classes is None and len(names) < 2:
            raise DataError(f"a data set must show at least 2 classes, but '{spec}' has the one folder '{names[0]}'; add another class")
        if classes is not None:
            full = [label for label in range(len(names)) if label not in empty]
            place = torch.full((len(names),), -1, dtype=torch.int64)
            place[torch.tensor(full, dtype=torch.int64)] = torch.arange(len(full))
            kept, names = place[kept], tuple(names[label] for label in full)
    if classes is None:
        return kept, names, left_out
    return by_name(kept, names, classes, spec), tuple(classes), left_out


def _without_images(labels: Tensor, seen: Sequence[Seen], count: int) -> list[int]:
    """The classes whose folders have no image, readable or not."""
    images = [isinstance(each.found, ImageFacts) or each.found.kind == "unreadable" for each in seen]
    present = set(torch.unique(labels[torch.tensor(images, dtype=torch.bool)]).tolist()) if images else set()
    return [label for label in range(count) if label not in present]


def _refuse_empty(spec: str, empty: Sequence[str], count: int) -> None:
    if len(empty) == count:
        raise no_classes(spec, count)
    raise DataError(f"each class must have images, but '{spec}' has none in {some(empty)}; add some or remove the folder")


class _Memory:
    """Keeps the decoded images of a set as long as they have one size and fit into memory."""

    def __init__(self, count: int, rule: ImageRule, most_bytes: int) -> None:
        self._count, self._rule, self._most = count, rule, most_bytes
        self._lock = threading.Lock()
        self._images: Tensor | None = None
        self._alike = count * rule.channels <= most_bytes  # lower bound: one pixel per image
        self._whole = True

    @property
    def wanted(self) -> bool:
        """Whether all images so far have one size and fit into memory."""
        return self._alike

    def keep(self, number: int, source: Image.Image | Array) -> None:
        """Keep an image if it has the size of the others."""
        width, height = source.size if isinstance(source, Image.Image) else source.shape[1::-1]
        with self._lock:
            if self._images is None and self._alike:
                self._alike = self._count * width * height * self._rule.channels <= self._most
                self._images = torch.empty(self._count if self._alike else 0, self._rule.channels, height, width, dtype=torch.uint8)
            images = self._images
            self._alike = self._alike and images is not None and images.shape[2:] == (height, width)
            if not self._alike or images is None:
                self._images = None
                return
        if has_white(source, self._rule):
            images[number] = _tensor(pixels_of(picture_from(source, self._rule)))
        else:
            self._whole = False  # white is known only after all images were scanned

    def pixels(self, rows: Tensor, items: Items, rule: ImageRule) -> Tensor | None:
        """The images of these rows, uint8 [N, C, H, W]; None if they were not kept."""
        if not self._alike or self._images is None or not len(rows):
            return None
        if not self._whole:
            for row in rows.tolist():
                self._images[row] = _tensor(pixels_of(picture_of(items.content(row), rule)))
        return self._images if len(rows) == len(self._images) else self._images[rows]


def _tensor(pixels: Array) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
