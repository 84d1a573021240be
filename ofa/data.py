"""Labelled images in memory, and their batches at any resolution.

Shapes: N images of a set, B of a batch, C channels, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.errors import DataError, nearest

__all__ = ["Augmentation", "ImageData", "Splits", "batch_indices", "batches", "data_names", "digits", "load_data", "make_batch", "split"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a training image may be moved at random; each image of a batch is moved on its own.

    Attributes:
        shift: largest shift along each axis, as a share of the image's side (0..1).
        scale: largest zoom in or out, as a share (0.1: between 0.9 and 1.1 times the size; below 1).
        flip: whether half of the images are mirrored left to right. Wrong for digits, letters and traffic signs.
    """

    shift: float = 0.0
    scale: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("shift", "scale"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise DataError(f"an augmentation's {name} must be a share in 0..1 (1 excluded), but is {value}; 0.1 is a common choice")

    def __call__(self, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Move each image by one bilinear resampling; beyond the border its outermost pixels repeat."""
        if not (self.shift or self.scale or self.flip):
            return x_BCHW
        batch = len(x_BCHW)
        zoom = 1 + self.scale * (2 * torch.rand(batch, generator=generator) - 1)
        # Grid coordinates run from -1 to 1, so a shift by a share of the side is twice that share.
        move = 2 * self.shift * (2 * torch.rand(batch, 2, generator=generator) - 1)
        side = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0) if self.flip else torch.ones(batch)
        matrix = torch.zeros(batch, 2, 3)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = side / zoom, 1 / zoom, move
        grid = F.affine_grid(matrix.to(x_BCHW.device), list(x_BCHW.shape), align_corners=False)
        return F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageData:
    """Labelled images, checked when they are made.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], indices into ``class_names``.
        class_names: one name a class, in the order of the logits.
        mean: of each channel on the scale 0..1, subtracted from every batch; None takes it from ``images``.
        std: of each channel on the scale 0..1, every batch is divided by it; None takes it from ``images``.

    Raises:
        DataError: wrong types or shapes, no images, labels out of range, fewer than two classes present, or constant images.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 of shape [N, C, H, W], but are {self.images.dtype} of shape {list(self.images.shape)}; "
                "convert them first"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels must be int64 of shape [{len(self.images)}], one an image, but are {self.labels.dtype} of shape "
                f"{list(self.labels.shape)}; give each image its class index"
            )
        if not self.images.numel():
            raise DataError(f"a data set must have images, but this one has shape {list(self.images.shape)}; check where it was read from")
        self._check_labels()
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.images.shape[1]:
                raise DataError(f"{name} must have one value a channel ({self.images.shape[1]}), but has {len(values)}; give one for each")

    def _check_labels(self) -> None:
        wrong = torch.nonzero((self.labels < 0) | (self.labels >= len(self.class_names))).flatten()
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"labels must lie in 0..{len(self.class_names) - 1} for {len(self.class_names)} classes, but {len(wrong)} do not, "
                f"first {int(self.labels[first])} at image {first}; name every class or correct the labels"
            )
        if len(torch.unique(self.labels)) < 2:
            only = self.class_names[int(self.labels[0])]
            raise DataError(f"a data set must show at least 2 classes, but all {len(self)} images are of '{only}'; add another class")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The length of the logits of a network for this data."""
        return len(self.class_names)

    @cached_property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel on the scale 0..1: as given, or of these images."""
        # A histogram is exact and needs no copy of the images as floats.
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in self.images.unbind(1)]).double()
        share, level = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
        mean = share @ level
        variance = (share * (level - mean[:, None]) ** 2).sum(1)
        std = self.std or tuple(variance.sqrt().tolist())
        if min(std) <= 0:
            raise DataError(
                f"every channel of the images must vary, but their standard deviations are {list(std)}; remove the constant one"
            )
        return self.mean or tuple(mean.tolist()), std

    def subset(self, index: Tensor) -> ImageData:
        """The images at ``index`` (int64), normalized as this set is."""
        mean, std = self.normalization
        return replace(self, images=self.images[index], labels=self.labels[index], mean=mean, std=std)


class Splits(NamedTuple):
    """Three parts of a data set: to train on, to select among networks on, and to report on once."""

    train: ImageData
    selection: ImageData
    test: ImageData


def split(data: ImageData, fractions: Sequence[float], generator: torch.Generator) -> tuple[ImageData, ...]:
    """Cut a data set at random into parts in which every class has its share.

    Unless ``data`` was given its mean and std, all parts are normalized by those of the first, so that nothing of a test
    part is known to a network that is trained on the first part.

    Args:
        data: the set to cut.
        fractions: share of each part, each above 0, together at most 1.
        generator: decides which image goes where.

    Raises:
        DataError: impossible fractions, or a class with fewer images than there are parts.
    """
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise DataError(f"the fractions of a split must be positive and sum to at most 1, but are {list(fractions)}; try 0.7, 0.15, 0.15")
    chosen: list[list[Tensor]] = [[] for _ in fractions]
    for label in torch.unique(data.labels).tolist():
        members = torch.nonzero(data.labels == label).flatten()
        if len(members) < len(fractions):
            raise DataError(
                f"each class must have an image for each of the {len(fractions)} parts, but '{data.class_names[label]}' has "
                f"{len(members)} in all; add images or leave the class out"
            )
        members = members[torch.randperm(len(members), generator=generator)]
        for part, (start, stop) in enumerate(pairwise(_cuts(len(members), fractions))):
            chosen[part].append(members[start:stop])
    mixed = [torch.cat(part)[torch.randperm(sum(map(len, part)), generator=generator)] for part in chosen]
    first = replace(data, images=data.images[mixed[0]], labels=data.labels[mixed[0]])
    mean, std = first.normalization
    return tuple(replace(data, images=data.images[index], labels=data.labels[index], mean=mean, std=std) for index in mixed)


def _cuts(count: int, fractions: Sequence[float]) -> list[int]:
    """Where ``count`` members are cut so that each part gets its share, to rounding, and at least one."""
    cuts = [0]
    for position, total in enumerate(accumulate(fractions)):
        left = len(fractions) - 1 - position
        cuts.append(max(cuts[-1] + 1, min(round(total * count), count - left)))
    return cuts


def batch_indices(count: int, batch_size: int, generator: torch.Generator | None = None, *, drop_last: bool = False) -> list[Tensor]:
    """The indices (int64) of each batch of one pass over ``count`` images: shuffled by ``generator``, in order without one.

    Args:
        count: images in the set.
        batch_size: images a batch.
        generator: shuffles the images.
        drop_last: leave out the last batch when it is short, unless it is the only one.
    """
    if batch_size < 1:
        raise DataError(f"a batch must have at least 1 image, but batch_size is {batch_size}; raise it")
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    parts = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return parts[:-1] if drop_last and len(parts) > 1 and len(parts[-1]) < batch_size else parts


def make_batch(
    data: ImageData,
    index: Tensor,
    *,
    resolution: int,
    augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The images at ``index`` as input of a network, and their labels.

    Args:
        data: the set.
        index: int64 [B].
        resolution: side of the square input in pixels; images are resized bilinearly, with antialiasing where they shrink.
        augmentation: how images are moved at random, if ``generator`` is there too.
        generator: the randomness of the augmentation, on the CPU.
        device: where the batch is made.

    Returns:
        float32 [B, C, resolution, resolution] in channels-last order, normalized; int64 [B].
    """
    x = data.images[index].to(device).contiguous(memory_format=torch.channels_last).float()
    if x.shape[2:] != (resolution, resolution):
        x = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True, align_corners=False)
    if augmentation is not None and generator is not None:
        x = augmentation(x, generator)
    mean, std = (255 * torch.tensor(values, device=x.device).view(1, -1, 1, 1) for values in data.normalization)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last), data.labels[index].to(device)


def batches(
    data: ImageData,
    *,
    batch_size: int,
    resolution: int,
    generator: torch.Generator | None = None,
    augmentation: Augmentation | None = None,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a data set; arguments as of ``batch_indices`` and ``make_batch``.

    Without a ``generator`` the images come in order and unaugmented.

    Yields:
        normalized float32 [B, C, resolution, resolution] in channels-last order, and int64 [B].
    """
    for index in batch_indices(len(data), batch_size, generator, drop_last=drop_last):
        yield make_batch(data, index, resolution=resolution, augmentation=augmentation, generator=generator, device=device)


def digits() -> ImageData:
    """The 1797 handwritten digits that come with scikit-learn: real scans of 8x8 pixels in 17 grey levels.

    The source is the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998). The grey channel is
    repeated three times, because the networks here take colour images.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    scans = load_digits()
    grey = torch.from_numpy(np.round(scans.images * (255 / 16)).astype(np.uint8))
    return ImageData(
        images=grey[:, None].repeat(1, 3, 1, 1),
        labels=torch.from_numpy(scans.target.astype(np.int64)),
        class_names=tuple(str(name) for name in scans.target_names),
    )


_DATA: dict[str, Callable[[], ImageData]] = {"digits": digits}


def data_names() -> tuple[str, ...]:
    """The names that ``load_data`` knows."""
    return tuple(sorted(_DATA))


def load_data(spec: str) -> ImageData:
    """The data set that a recipe names.

    Raises:
        DataError: no data set has this name.
    """
    if spec not in _DATA:
        raise DataError(f"'{spec}' must be the name of a data set; {nearest(spec, _DATA)}")
    return _DATA[spec]()
