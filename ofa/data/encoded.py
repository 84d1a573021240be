"""Labelled images that stay encoded until a batch needs them: for sets that do not fit in memory.

Shapes: N images of a set, B of a batch, C channels, H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ofa.data.augmentation import Augmentation, Boxes
from ofa.data.images import Normalization, Pixels, check_labels
from ofa.errors import DataError

__all__ = ["BROKEN", "DatasetItems", "EncodedImages", "FileItems", "Items", "ParquetItems", "Unreadable", "pixels_of"]

Unreadable = Literal["refuse", "skip"]
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises on files that are not whole images."""
_NORMALIZATION_IMAGES = 1024


class Items(Protocol):
    """Where encoded images come from."""

    def __len__(self) -> int:
        """The number of images."""

    def open(self, number: int) -> Image.Image:
        """One image, not necessarily decoded yet."""

    def content(self, number: int) -> bytes:
        """What an image's key is a digest of: its encoded bytes, or its pixels if it comes without any."""

    def name(self, number: int) -> str:
        """What a person would find it by."""


@dataclass(frozen=True)
class FileItems:
    """One file an image."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, number: int) -> Image.Image:
        """One image, its header read."""
        return Image.open(self.paths[number])

    def content(self, number: int) -> bytes:
        """The file."""
        return self.paths[number].read_bytes()

    def name(self, number: int) -> str:
        """Its path."""
        return str(self.paths[number])


@dataclass(frozen=True)
class ParquetItems:
    """The bytes of each image in a column of Parquet files, which arrow reads from the disk as needed.

    Attributes:
        column: ``pyarrow.ChunkedArray`` of binary values.
        names: where each row comes from.
    """

    column: Any
    source: str

    def __len__(self) -> int:
        return len(self.column)

    def open(self, number: int) -> Image.Image:
        """One image, its header read."""
        value = self.column[number].as_py()
        if value is None:
            raise OSError("the image has no bytes")
        return Image.open(io.BytesIO(value))

    def content(self, number: int) -> bytes:
        """The encoded bytes."""
        return self.column[number].as_py() or b""

    def name(self, number: int) -> str:
        """The file and the row."""
        return f"{self.source} row {number}"


@dataclass(frozen=True)
class DatasetItems:
    """The images of a ``torch.utils.data.Dataset`` whose items are (image, label)."""

    dataset: Any
    source: str

    def __len__(self) -> int:
        return len(self.dataset)

    def open(self, number: int) -> Image.Image:
        """One image, made a PIL image of whatever the dataset gives."""
        image = self.dataset[number][0]
        if isinstance(image, Image.Image):
            return image
        if isinstance(image, Tensor):
            image = image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()
        array = np.asarray(image)
        if array.dtype != np.uint8:
            raise DataError(
                "the images of a dataset must be PIL images, uint8 tensors [C, H, W] or uint8 arrays [H, W, C], but "
                f"{self.name(number)} is {type(image).__name__} of {array.dtype}; leave conversion and normalization out of it"
            )
        return Image.fromarray(array.squeeze(-1) if array.ndim == 3 and array.shape[-1] == 1 else array)

    def content(self, number: int) -> bytes:
        """The pixels."""
        return np.asarray(self.open(number)).tobytes()

    def name(self, number: int) -> str:
        """The dataset and the index."""
        return f"{self.source}[{number}]"


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedImages:
    """Labelled images that are decoded when a batch is made.

    Without a crop by the augmentation, the middle square of an image is taken.

    Attributes:
        items: where the images come from.
        rows: int64 [N], which of the items belong to this set.
        labels: int64 [N], indices into ``class_names``.
        class_names: one name a class, in the order of the logits.
        keys: uint8 [N, 16], a digest of each image's content.
        unreadable: what is done with an image that turns out to be broken: ``refuse`` raises, ``skip`` leaves it out of its batch.
        given: mean and deviation of each channel on the scale 0..1; None measures them on up to 1,024 images of this set.
        skipped: names of images that were left out from the start.
        broken: names of images that were left out of a batch so far.

    Raises:
        DataError: labels out of range, fewer than two classes present.
    """

    items: Items
    rows: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    keys: Tensor
    unreadable: Unreadable = "refuse"
    given: Normalization | None = None
    skipped: tuple[str, ...] = ()
    broken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        check_labels(self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """The length of the logits of a network for this data."""
        return len(self.class_names)

    @cached_property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of each channel on the scale 0..1: as given, or of images at even distances."""
        if self.given is not None:
            return self.given
        count = min(len(self), _NORMALIZATION_IMAGES)
        index = torch.arange(count) * len(self) // count
        x_BCHW = self.read(index, 64).x_BCHW.double() / 255
        std, mean = torch.std_mean(x_BCHW, (0, 2, 3))
        if float(std.min()) <= 0:
            raise DataError(
                f"every channel of the images must vary, but their standard deviations are {std.tolist()}; remove the constant one"
            )
        return tuple(mean.tolist()), tuple(std.tolist())

    def pick(self, index: Tensor) -> EncodedImages:
        """The images at ``index`` (int64), normalized by their own mean and deviation unless those were given."""
        return replace(self, rows=self.rows[index], labels=self.labels[index], keys=self.keys[index])

    def subset(self, index: Tensor) -> EncodedImages:
        """The images at ``index`` (int64), normalized as this set is."""
        return self.pick(index).normalized(self.normalization)

    def normalized(self, normalization: Normalization | None) -> EncodedImages:
        """The same images, normalized otherwise; by their own mean and deviation if None."""
        return replace(self, given=normalization)

    def take_note(self, names: Sequence[str]) -> None:
        """Remember images that were left out of a batch, which may have been made in another process."""
        self.broken.update(names)

    def read(
        self, index: Tensor, resolution: int, augmentation: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> Pixels:
        """The images at ``index``, cut and resized by PIL with antialiasing."""
        random = augmentation if generator is not None else None
        boxes = random.boxes(len(index), generator) if random is not None and generator is not None else None
        pictures, good, broken = [], [], []
        for place, row in enumerate(self.rows[index].tolist()):
            try:
                with self.items.open(row) as image:
                    pictures.append(_square(image, resolution, boxes, place))
                good.append(place)
            except BROKEN as error:
                name = self.items.name(row)
                if self.unreadable == "refuse":
                    raise DataError(
                        f'every image must be readable, but {name} is not: {error}; remove it or set unreadable = "skip"'
                    ) from error
                broken.append(name)
        labels_B = self.labels[index[good]] if good else self.labels[:0]
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() if good else torch.empty(0, 3, resolution, resolution)
        if random is not None and generator is not None:
            x = random(x, generator)
        return Pixels(x, labels_B, tuple(broken))


def _square(image: Image.Image, resolution: int, boxes: Boxes | None, place: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [resolution, resolution, 3] of a part of an image: its crop, or its middle square."""
    width, height = image.size
    if boxes is None:
        side = min(width, height)
        left, top, kept_width, kept_height = (width - side) / 2, (height - side) / 2, float(side), float(side)
    else:
        (x, y), (w, h) = boxes.centre_B2[place].tolist(), boxes.size_B2[place].tolist()
        left, top, kept_width, kept_height = (x - w / 2) * width, (y - h / 2) * height, w * width, h * height
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, as long as the part that is kept stays large enough.
    image.draft("RGB", (round(resolution * width / kept_width), round(resolution * height / kept_height)))
    down, across = image.size[0] / width, image.size[1] / height
    box = (
        max(0.0, left * down),
        max(0.0, top * across),
        min(float(image.size[0]), (left + kept_width) * down),
        min(float(image.size[1]), (top + kept_height) * across),
    )
    small = image.convert("RGB").resize((resolution, resolution), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return np.asarray(small)


def pixels_of(image: Image.Image) -> Tensor:
    """uint8 [3, H, W] of a whole image."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
