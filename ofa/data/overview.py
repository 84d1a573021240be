"""Overview of a data set: counts, sizes, formats, duplicates, and warnings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from ofa.data.scan import ImageFacts
from ofa.resolution import Resolution, pixels, sides

__all__ = ["Copies", "Overview", "PlacedImage", "Sizes", "overview"]

_UNEVEN = 10
"""A warning is given if the largest class has more than this many times the images of the smallest."""


class PlacedImage(NamedTuple):
    """A readable image with its classes and its part.

    Attributes:
        facts: facts about the image.
        class_names: its classes.
        part: its part of the data set: ``train``, ``selection``, ``test``, or ``unused`` if the fractions leave it over.
    """

    facts: ImageFacts
    class_names: tuple[str, ...]
    part: str


@dataclass(frozen=True)
class Sizes:
    """Sizes of images in pixels.

    Attributes:
        smallest: width and height of the image with the fewest pixels.
        largest: width and height of the image with the most pixels.
        median_side: median of the shorter sides.
        distinct: number of different sizes.
    """

    smallest: tuple[int, int]
    largest: tuple[int, int]
    median_side: float
    distinct: int


@dataclass(frozen=True)
class Copies:
    """A group of images with the same content.

    Attributes:
        names: names of all images; first one of each class and part.
        class_names: their classes, without repeats, in alphabetical order.
        parts: their parts, without repeats, in alphabetical order.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """Overview of a data set.

    Attributes:
        images: number of readable images.
        classes: number of images of each class, by part.
        parts: number of images of each part.
        formats: number of images of each file format.
        modes: number of images of each pixel format.
        sizes: sizes of the images.
        copies: groups of images with the same content, the largest first.
        warnings: one sentence, with a next step, for each defect that harms training or falsifies scores.
    """

    images: int
    classes: Mapping[str, Mapping[str, int]]
    parts: Mapping[str, int]
    formats: Mapping[str, int]
    modes: Mapping[str, int]
    sizes: Sizes
    copies: tuple[Copies, ...]
    warnings: tuple[str, ...]


def overview(images: Sequence[PlacedImage], class_names: Sequence[str], resolution: Resolution) -> Overview:
    """Summarize the images of a data set.

    Args:
        images: all readable images, at least one.
        class_names: names of the classes, in the order of the logits.
        resolution: largest resolution of the network's input, in pixels.

    Returns:
        The overview.
    """
    by_class: dict[str, Counter[str]] = {name: Counter() for name in class_names}
    for image in images:
        for name in image.class_names:
            by_class[name][image.part] += 1
    copies = _copies(images)
    return Overview(
        images=len(images),
        classes={name: dict(counts) for name, counts in by_class.items()},
        parts=dict(Counter(image.part for image in images)),
        formats=dict(Counter(image.facts.format or "none" for image in images).most_common()),
        modes=dict(Counter(image.facts.mode for image in images).most_common()),
        sizes=_sizes(images),
        copies=copies,
        warnings=(*_about_classes(by_class), *_about_copies(copies), *_about_sizes(images, resolution)),
    )


def _copies(images: Sequence[PlacedImage]) -> tuple[Copies, ...]:
    groups: dict[bytes, list[PlacedImage]] = defaultdict(list)
    for image in images:
        groups[image.facts.key].append(image)
    found = [_copies_of(group) for group in groups.values() if len(group) > 1]
    return tuple(sorted(found, key=lambda copies: -len(copies.names)))


def _copies_of(group: Sequence[PlacedImage]) -> Copies:
    met: Counter[tuple[str, str]] = Counter()
    ranked = []
    for image in group:
        place = (", ".join(image.class_names), image.part)
        ranked.append((met[place], image.facts.name))
        met[place] += 1
    names = tuple(name for _, name in sorted(ranked, key=lambda each: each[0]))
    return Copies(names, tuple(sorted({name for name, _ in met})), tuple(sorted({part for _, part in met})))


def _sizes(images: Sequence[PlacedImage]) -> Sizes:
    sizes = [(image.facts.width, image.facts.height) for image in images]
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return Sizes(ordered[0], ordered[-1], median(min(size) for size in sizes), len(set(sizes)))


def _about_classes(by_class: Mapping[str, Counter[str]]) -> list[str]:
    totals = {name: counts.total() for name, counts in by_class.items()}
    sentences = []
    most, least = max(totals, key=lambda name: totals[name]), min(totals, key=lambda name: totals[name])
    if totals[most] > _UNEVEN * max(totals[least], 1):
        sentences.append(
            f"the classes are uneven: '{most}' has {totals[most]} images and '{least}' {totals[least]}; accuracy is mostly accuracy on "
            "the large ones, so add images of the small ones"
        )
    for part in ("train", "selection", "test"):
        missing = [name for name, counts in by_class.items() if not counts[part]]
        if missing and any(counts[part] for counts in by_class.values()):
            names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            sentences.append(f"the {part} part has no images of {len(missing)} classes ({names}); no score is known for them there")
    return sentences


def _about_copies(copies: Sequence[Copies]) -> list[str]:
    sentences = []
    torn = [group for group in copies if len(group.class_names) > 1]
    leaking = [group for group in copies if len(group.parts) > 1]
    if torn:
        sentences.append(f"{_groups(torn)} in more than one class, first {' and '.join(torn[0].names[:2])}; keep each in one class")
    if leaking:
        sentences.append(
            f"{_groups(leaking)} in more than one part, first {' and '.join(leaking[0].names[:2])}; accuracy would be measured on images "
            "that were trained on, so remove them from one"
        )
    return sentences


def _groups(groups: Sequence[Copies]) -> str:
    return "1 image has copies" if len(groups) == 1 else f"{len(groups)} images have copies"


def _about_sizes(images: Sequence[PlacedImage], resolution: Resolution) -> list[str]:
    height, width = sides(resolution)
    small = sum(image.facts.width < width or image.facts.height < height for image in images)
    if small <= len(images) / 2:
        return []
    return [
        f"{small} of {len(images)} images are smaller than the network's input of {pixels(resolution)} and are upscaled; a smaller "
        "resolution would lose no detail"
    ]
