"""A contact sheet: images of each class exactly as a network sees them, before normalization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ofa.data.augmentation import Augmentation
from ofa.data.images import Images
from ofa.data.labels import counts_by_class, members_of
from ofa.resolution import Resolution

__all__ = ["ClassStrip", "contact_sheet"]

_GAP = 2
_PAPER = 255


@dataclass(frozen=True, eq=False)
class ClassStrip:
    """Images of one class side by side.

    Attributes:
        class_name: name of the class.
        images: number of the class's images in the whole set.
        evaluated: the images as in evaluation; [height, images shown x (width + 2) - 2] pixels.
        trained: the same images, augmented as in training; None without an augmentation.
    """

    class_name: str
    images: int
    evaluated: Image.Image
    trained: Image.Image | None


def contact_sheet(
    data: Images,
    resolution: Resolution,
    *,
    each: int = 6,
    classes: int = 24,
    augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
) -> list[ClassStrip]:
    """Evenly spaced images of each class, read by the set's own rule.

    Args:
        data: the set of images.
        resolution: height and width of the network's input in pixels.
        each: the most images of a class.
        classes: the most classes; the first ones are shown.
        augmentation: augmentation of training; it is applied only with a ``generator``.
        generator: random generator of the augmentation.

    Returns:
        A strip for each class that has images.
    """
    strips = []
    for label in torch.nonzero(counts_by_class(data.labels, data.num_classes)).flatten().tolist()[:classes]:
        members = members_of(data.labels, label)
        count = min(each, len(members))
        index = members[torch.arange(count) * len(members) // count]
        trained = None
        if augmentation is not None and generator is not None:
            trained = _strip(_changed(data, index, resolution, augmentation, generator))
        evaluated = _strip(data.read(index, resolution).x_BCHW)
        strips.append(ClassStrip(data.class_names[label], len(members), evaluated, trained))
    return strips


def _changed(data: Images, index: Tensor, resolution: Resolution, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    x_BCHW = data.read(index, resolution, augmentation, generator).x_BCHW
    return augmentation.recolour(x_BCHW / 255, generator) * 255


def _strip(x_BCHW: Tensor) -> Image.Image:
    """The images of a batch in a row, without alpha. If channels are not colours, only the first is shown."""
    x_BCHW = x_BCHW[:, :3] if x_BCHW.shape[1] in (3, 4) else x_BCHW[:, :1].expand(-1, 3, -1, -1)
    pixels = x_BCHW.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    count, height, width, _ = pixels.shape
    paper = np.full((height, count * (width + _GAP) - _GAP, 3), _PAPER, np.uint8)
    for number, picture in enumerate(pixels):
        left = number * (width + _GAP)
        paper[:, left : left + width] = picture
    return Image.fromarray(paper)
