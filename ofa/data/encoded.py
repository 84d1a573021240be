"""Labelled images that stay encoded until a batch needs them, for sets that do not fit into memory.

Shapes: N images of a set, B of a batch, C channels, H W height and width of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.data.augmentation import Augmentation, Boxes
from ofa.data.images import Normalization, Pixels, unreadable_names, varying
from ofa.data.items import Items, Unreadable
from ofa.data.labels import check_labels
from ofa.data.left_out import LeftOut
from ofa.data.opening import UnreadableError
from ofa.data.reading import Box, input_of
from ofa.data.rule import ImageRule
from ofa.errors import DataError
from ofa.resolution import Resolution, sides

__all__ = ["EncodedImages"]

_NORMALIZATION_IMAGES = 1024


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedImages:
    """Labelled images that are decoded when a batch is made.

    They are cropped and resized by PIL, in levels of 0..255. So they differ by at most one level from the same images in ``ImageData``, and
    not at all if nothing is resized. JPEGs of more than four times the wanted size are decoded at reduced size; they differ by less than
    one level on average.

    Attributes:
        items: source of the images.
        rows: int64 [N], numbers of the items that belong to this set.
        labels: int64 [N], indices into ``class_names``, or bool [N, classes].
        class_names: one name for each class, in the order of the logits.
        keys: uint8 [N, 16], a digest of each image's content.
        rule: how the images are read.
        unreadable: what happens if an image is found to be broken: ``refuse`` raises, ``skip`` leaves it out of its batch.
        given: mean and standard deviation of each channel (images in 0..1); None measures them on up to 1,024 images of this set.
        left_out: files beside the images that are not in the set, with reasons.
        broken: names of images that were left out of a batch so far.
        least_classes: how many classes must be present; 1 for test images.

    Raises:
        DataError: labels are out of range, or too few classes are present.
    """

    items: Items
    rows: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    keys: Tensor
    rule: ImageRule = ImageRule()
    unreadable: Unreadable = "refuse"
    given: Normalization | None = None
    left_out: tuple[LeftOut, ...] = ()
    broken: set[str] = field(default_factory=set)
    least_classes: int = 2

    def __post_init__(self) -> None:
        check_labels(self.labels, self.class_names, least=self.least_classes)

    def __getstate__(self) -> dict[str, Any]:
        # As arrays: tensors are sent to other processes through shared memory, which may be small.
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in state.items()})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """Number of classes, and of a network's outputs."""
        return len(self.class_names)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of images that were left out from the start because they are unreadable."""
        return unreadable_names(self.left_out)

    @cached_property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of each channel (images in 0..1): as given, or measured on evenly spaced images."""
        if self.given is not None:
            return self.given
        count = min(len(self), _NORMALIZATION_IMAGES)
        index = torch.arange(count) * len(self) // count
        x_BCHW = self.read(index, 64).x_BCHW.double() / 255
        std, mean = torch.std_mean(x_BCHW, (0, 2, 3))
        return tuple(mean.tolist()), varying(std.tolist(), self.rule)

    def pick(self, index: Tensor) -> EncodedImages:
        """The images at ``index`` (int64), normalized by their own mean and standard deviation unless these were given."""
        return replace(self, rows=self.rows[index], labels=self.labels[index], keys=self.keys[index])

    def subset(self, index: Tensor) -> EncodedImages:
        """The images at ``index`` (int64), with this set's normalization."""
        return self.pick(index).normalized(self.normalization)

    def normalized(self, normalization: Normalization | None) -> EncodedImages:
        """The same images with another normalization; None is their own mean and standard deviation."""
        return replace(self, given=normalization)

    def take_note(self, names: Sequence[str]) -> None:
        """Note images that were left out of a batch; the batch may have been made in another process."""
        self.broken.update(names)

    def read(
        self, index: Tensor, resolution: Resolution, augmentation: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> Pixels:
        """The images at ``index`` (int64 [B]); arguments as of ``Images.read``."""
        random = augmentation if generator is not None else None
        boxes = random.boxes(len(index), generator) if random is not None and generator is not None else None
        x, labels_B, broken = self.inputs(index, resolution, boxes)
        x = x.float()
        return Pixels(random(x, generator) if random is not None and generator is not None else x, labels_B, broken)

    def inputs(self, index: Tensor, resolution: Resolution, boxes: Boxes | None = None) -> Pixels:
        """The images at ``index`` (int64 [B]), unaugmented, as uint8 [B, C, H, W]: their crops, or the part that the rule fits.

        Raises:
            DataError: an image is unreadable, and unreadable images are refused.
        """
        inputs, good, broken = [], [], []
        for place, row in enumerate(self.rows[index].tolist()):
            try:
                inputs.append(input_of(self.items.content(row), self.rule, resolution, None if boxes is None else _box(boxes, place)))
                good.append(place)
            except UnreadableError as error:
                name = self.items.name(row)
                if self.unreadable == "refuse":
                    raise DataError(
                        f'every image must be readable, but {name} is not: {error}; remove it or set unreadable = "skip"'
                    ) from error
                broken.append(name)
        if not good:
            return Pixels(torch.empty(0, self.rule.channels, *sides(resolution), dtype=torch.uint8), self.labels[:0], tuple(broken))
        x = torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2)
        return Pixels(x, self.labels[index[good]], tuple(broken))


def _box(boxes: Boxes, place: int) -> Box:
    (width, height), (x, y) = boxes.size_B2[place].tolist(), boxes.place_B2[place].tolist()
    return Box((width, height), (x, y))
