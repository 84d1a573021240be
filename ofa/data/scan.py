"""Scans every image of a source once, before training.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ofa.data.items import DatasetItems, FileItems, Items, digest, regular_file
from ofa.data.left_out import LeftOut
from ofa.data.opening import UnreadableError, check_start, is_image_name, open_image
from ofa.data.reading import Array, Content, Values, check_channels, check_white, decoded, draws_smaller, upright_size, values_of
from ofa.data.rule import ImageRule, smallest_white
from ofa.progress import Progress

__all__ = ["ImageFacts", "Keeper", "Looker", "Seen", "rule_for"]

_MOST_THREADS = 8
_AT_ONCE = 64
"""Images in work at a time; only their bytes are held in memory."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts about a readable image.

    Attributes:
        name: name by which a person finds it.
        key: 16 bytes, a digest of its content.
        width, height: upright size in pixels.
        mode: pixel format by Pillow's name (``RGB``, ``L``, ``I;16``), or an array's data type (``uint16``).
        format: file format by Pillow's name (``JPEG``); empty without a file.
        bytes: size of its file, or of its pixels, in bytes.
        values: range of values if the pixel format does not define white; None for others, and if the image was known already.
    """

    name: str
    key: bytes
    width: int
    height: int
    mode: str
    format: str
    bytes: int
    values: Values | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Result of scanning one item.

    Attributes:
        found: facts about the image, or why it is left out.
        label: the label from its dataset, if labels were not known before.
    """

    found: ImageFacts | LeftOut
    label: Any = None


class Keeper(Protocol):
    """Keeps decoded images in memory while ``wanted``; called from several threads."""

    @property
    def wanted(self) -> bool:
        """Whether more images are wanted."""

    def keep(self, number: int, source: Image.Image | Array) -> None:
        """Keep an image that was decoded at full size."""


@dataclass(frozen=True)
class Looker:
    """Reads, digests and decodes every item of a source.

    Attributes:
        items: the items of the source.
        rule: how images are read; images with values beyond its whites are left out.
        keeper: receives the decoded images.
        known: keys of images that were fully decoded before; only their headers are read now.
        labelled: whether labels come with the items.
    """

    items: Items
    rule: ImageRule
    keeper: Keeper
    known: Container[bytes] = ()
    labelled: bool = False

    def look(self, progress: Progress) -> Iterator[Seen]:
        """Scan all items, several at a time; yields results in order.

        Raises:
            DataError: items are not images, or have channels that cannot be converted.
        """
        count, threads = len(self.items), _threads() if self.items.parallel else 1
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, count, _AT_ONCE):
                block = range(start, min(start + _AT_ONCE, count))
                yield from pool.map(self._seen, block) if threads > 1 else map(self._seen, block)
                progress(block.stop, count, "images")

    def _seen(self, number: int) -> Seen:
        name, label = self.items.name(number), None
        try:
            if isinstance(self.items, FileItems) and not is_image_name(name):
                check_start(regular_file(self.items.paths[number]))
            if self.labelled and isinstance(self.items, DatasetItems):
                content, label = self.items.labelled(number)
            else:
                content = self.items.content(number)
            return Seen(self._facts(content, name, number), label)
        except UnreadableError as error:
            # A file of another kind is not damaged.
            strange = error.unknown and isinstance(self.items, FileItems) and not is_image_name(name)
            return Seen(LeftOut(name, "is no image", "no image") if strange else LeftOut(name, str(error)), label)

    def _facts(self, content: Content, name: str, number: int) -> ImageFacts:
        key, size = digest(content), len(content) if isinstance(content, bytes) else np.asarray(content).nbytes
        opened = open_image(content) if isinstance(content, bytes) else content
        if not isinstance(opened, Image.Image):
            width, height, values = self._decode(opened, number)
            return ImageFacts(name, key, width, height, str(opened.dtype), "", size, values)
        mode, form, values = opened.mode, opened.format or "", None
        # Images whose format does not define white (I, F) are always decoded, because the set's white may depend on them.
        if key in self.known and not self.keeper.wanted and mode not in ("I", "F"):
            width, height = upright_size(opened)
        elif draws_smaller(opened) and isinstance(content, bytes) and not self.keeper.wanted:
            width, height = upright_size(opened)
            check_channels(decoded(opened, at_least=1), self.rule)  # reads all of its data, as a decoding at full size does
        else:
            width, height, values = self._decode(opened, number)
        return ImageFacts(name, key, width, height, mode, form, size, values)

    def _decode(self, opened: Content, number: int) -> tuple[int, int, Values | None]:
        source = decoded(opened)
        values = values_of(source)
        check_white(values, self.rule)
        check_channels(source, self.rule)
        if self.keeper.wanted:
            self.keeper.keep(number, source)
        height, width = (source.size[1], source.size[0]) if isinstance(source, Image.Image) else source.shape[:2]
        return width, height, values


def rule_for(rule: ImageRule, facts: Iterable[ImageFacts]) -> ImageRule:
    """The rule completed by whites that it lacks, found over all images."""
    highest: dict[bool, float] = {}
    for each in facts:
        if each.values is not None:
            highest[each.values.whole] = max(highest.get(each.values.whole, 0.0), each.values.highest)
    if True in highest and rule.integer_white is None:
        rule = replace(rule, integer_white=int(smallest_white(highest[True], whole=True)))
    if False in highest and rule.float_white is None:
        rule = replace(rule, float_white=smallest_white(highest[False], whole=False))
    return rule


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, cores)
