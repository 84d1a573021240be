"""Labelled images: the protocol of all kinds, and images in memory.

Shapes: N images of a set, B of a batch, C channels, H W height and width in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.data.augmentation import Augmentation
from ofa.data.labels import check_labels
from ofa.data.left_out import LeftOut
from ofa.data.reading import fitting_part
from ofa.data.rule import ImageRule
from ofa.data.transfer import moved
from ofa.errors import DataError
from ofa.resolution import Resolution, sides

__all__ = [
    "KEY_BYTES",
    "ImageData",
    "Images",
    "Normalization",
    "Pixels",
    "Splits",
    "key_of",
    "keys_of",
    "unreadable_names",
    "varying",
]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel (images in 0..1)."""

KEY_BYTES = 16
"""Length of an image's digest: the chance that two of a billion images collide is 1 in 10^20."""


class Pixels(NamedTuple):
    """Decoded images of a set.

    Attributes:
        x_BCHW: float32 or uint8 [B, C, H, W] on the scale 0..255.
        labels_B: labels of the B images.
        broken: names of unreadable images, which are left out.
    """

    x_BCHW: Tensor
    labels_B: Tensor
    broken: tuple[str, ...] = ()


class Images(Protocol):
    """Labelled images, in memory or encoded."""

    @property
    def labels(self) -> Tensor:
        """int64 [N], indices into ``class_names``; for images with several classes bool [N, K], whether each class is present."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class, in the order of the logits."""

    @property
    def num_classes(self) -> int:
        """Number of classes, and of a network's outputs."""

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of each channel, by which batches are normalized."""

    @property
    def keys(self) -> Tensor:
        """uint8 [N, 16], a digest of each image's content: of its encoded bytes, or of its pixels if it has none.

        The same content has the same key under any name, in any folder and among any other images.
        """

    @property
    def rule(self) -> ImageRule:
        """How the images are read."""

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Files beside the images that are not in the set, with reasons."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of images that were left out because they are unreadable."""

    def __len__(self) -> int:
        """The number of images."""

    def pick(self, index: Tensor) -> Self:
        """The images at ``index`` (int64 [B]), normalized by their own mean and standard deviation unless these were given."""

    def subset(self, index: Tensor) -> Self:
        """The images at ``index`` (int64 [B]), with this set's normalization."""

    def normalized(self, normalization: Normalization | None) -> Self:
        """The same images with another normalization; None is their own mean and standard deviation."""

    def read(
        self, index: Tensor, resolution: Resolution, augmentation: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> Pixels:
        """Read images at a resolution.

        Args:
            index: indices of the images, int64 [B].
            resolution: height and width in pixels.
            augmentation: random crops, shifts and flips; they are applied only with a ``generator``.
            generator: random generator, on the CPU.

        Returns:
            The images and their labels.
        """


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageData:
    """Labelled images in memory, validated at construction.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], indices into ``class_names``, or bool [N, classes].
        class_names: one name for each class, in the order of the logits.
        mean: mean of each channel (images in 0..1), subtracted from every batch; None computes it from ``images``.
        std: standard deviation of each channel (images in 0..1), by which every batch is divided; None computes it from ``images``.
        left_out: files beside the images that are not in the set, with reasons.
        known_keys: uint8 [N, 16], digests of the images' content; None computes them from the pixels.
        known_rule: how the images are read; None is a central crop, with the channels of ``images``.
        least_classes: how many classes must be present; 1 for test images.

    Raises:
        DataError: types or shapes are wrong, there are no images, labels are out of range, too few classes are present, or (on first use of
            the normalization) a channel is constant.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    left_out: tuple[LeftOut, ...] = ()
    known_keys: Tensor | None = None
    known_rule: ImageRule | None = None
    least_classes: int = 2

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 of shape [N, C, H, W], but are {self.images.dtype} of shape {list(self.images.shape)}; "
                "convert them first"
            )
        if self.labels.dtype not in (torch.int64, torch.bool) or self.labels.shape[:1] != self.images.shape[:1]:
            raise DataError(
                f"labels must be int64 of shape [{len(self.images)}], one an image, but are {self.labels.dtype} of shape "
                f"{list(self.labels.shape)}; give each image its class index"
            )
        if not self.images.numel():
            raise DataError(f"a data set must have images, but this one has shape {list(self.images.shape)}; check where it was read from")
        check_labels(self.labels, self.class_names, least=self.least_classes)
        if self.rule.channels != self.images.shape[1]:
            raise DataError(
                f"images must have the channels of their rule ({self.rule.channels}), but have {self.images.shape[1]}; correct the rule"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.images.shape[1]:
                raise DataError(f"{name} must have one value a channel ({self.images.shape[1]}), but has {len(values)}; give one for each")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes, and of a network's outputs."""
        return len(self.class_names)

    @cached_property
    def rule(self) -> ImageRule:
        """How the images are read."""
        return self.known_rule or ImageRule(channels=self.images.shape[1])

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of images that were left out because they are unreadable."""
        return unreadable_names(self.left_out)

    @cached_property
    def keys(self) -> Tensor:
        """uint8 [N, 16], a digest of each image's content."""
        if self.known_keys is not None:
            return self.known_keys
        return keys_of(image.numpy().tobytes() for image in self.images.cpu())

    @cached_property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel (images in 0..1): as given, or computed from these images."""
        # A histogram is exact and needs no copy of the images as floats.
        shown = self._fitting(self.images, 1)  # the part for any square input
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in shown.unbind(1)]).double().cpu()
        share, level = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
        mean = share @ level
        variance = (share * (level - mean[:, None]) ** 2).sum(1)
        return self.mean or tuple(mean.tolist()), varying(self.std or variance.sqrt().tolist(), self.rule)

    def _fitting(self, images: Tensor, resolution: Resolution) -> Tensor:
        """The part of images [.., H, W] that the rule fits, before resizing."""
        left, top, width, height = fitting_part(images.shape[-1], images.shape[-2], self.rule.fit, resolution)
        return images[..., top : top + height, left : left + width]

    def pick(self, index: Tensor) -> ImageData:
        """The images at ``index`` (int64 [B]), normalized by their own mean and standard deviation unless these were given."""
        return replace(self, images=self.images[index], labels=self.labels[index], known_keys=self.keys[index])

    def subset(self, index: Tensor) -> ImageData:
        """The images at ``index`` (int64 [B]), with this set's normalization."""
        return self.pick(index).normalized(self.normalization)

    def normalized(self, normalization: Normalization | None) -> ImageData:
        """The same images with another normalization; None is their own mean and standard deviation."""
        mean, std = normalization or (None, None)
        return replace(self, mean=mean, std=std)

    def on(self, device: torch.device) -> ImageData:
        """A copy of the set on ``device``, where ``read`` then computes; cached for the next call."""
        place = torch.empty(0, device=device).device  # with its index, as tensors' devices have
        if place == self.images.device:
            return self
        if place not in self._copies:
            mean, std = self.normalization
            images, labels = self.images.to(place), self.labels.to(place)
            self._copies[place] = replace(self, images=images, labels=labels, mean=mean, std=std, known_keys=self.keys)
        return self._copies[place]

    @cached_property
    def _copies(self) -> dict[torch.device, ImageData]:
        return {}

    def read(
        self, index: Tensor, resolution: Resolution, augmentation: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> Pixels:
        """The images at ``index``: cropped to the rule's part and resized bilinearly with antialiasing, unless a random crop is taken.

        Arguments as of ``Images.read``.
        """
        index = moved(index, self.images.device)
        boxes = augmentation.boxes(len(index), generator) if augmentation is not None and generator is not None else None
        whole = self.images[index]
        fitting = self._fitting(whole, resolution)
        x = (whole if boxes else fitting).contiguous(memory_format=torch.channels_last).float()
        if boxes is None and x.shape[2:] != sides(resolution):
            x = F.interpolate(x, sides(resolution), mode="bilinear", antialias=True, align_corners=False)
        if augmentation is not None and generator is not None:
            # A random crop is taken from the whole image, by the same resampling that shifts and mirrors.
            share = (fitting.shape[3] / whole.shape[3], fitting.shape[2] / whole.shape[2])
            x = augmentation(x, generator, None if boxes is None else boxes.within(share), resolution)
        return Pixels(x, self.labels[index])


def key_of(content: bytes) -> bytes:
    """Digest of a content, 16 bytes (BLAKE2b, RFC 7693), equal on any machine."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def keys_of(contents: Iterable[bytes]) -> Tensor:
    """uint8 [N, 16], the key of each content."""
    joined = b"".join(map(key_of, contents))
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8).view(-1, KEY_BYTES)


def unreadable_names(left_out: Iterable[LeftOut]) -> tuple[str, ...]:
    """Names of unreadable images among files that are left out."""
    return tuple(each.name for each in left_out if each.kind == "unreadable")


def varying(std: Sequence[float], rule: ImageRule) -> tuple[float, ...]:
    """The standard deviations by which channels are divided; 1 for the alpha channel of opaque images.

    Raises:
        DataError: another channel is constant.
    """
    divisors = [1.0 if rule.channels == 4 and channel == 3 and value == 0 else value for channel, value in enumerate(std)]
    if min(divisors) <= 0:
        raise DataError(f"every channel of the images must vary, but their standard deviations are {list(std)}; remove the constant one")
    return tuple(divisors)


class Splits(NamedTuple):
    """Three parts of a data set.

    Attributes:
        train: images to train on.
        selection: held-out images to select networks on.
        test: images to report the final score on.
    """

    train: Images
    selection: Images
    test: Images
