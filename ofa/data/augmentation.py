"""Random augmentation of training images.

Shapes: B images of a batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.data.transfer import moved
from ofa.errors import DataError, MissingExtraError
from ofa.randomness import borrowed_randomness
from ofa.resolution import Resolution, sides

__all__ = ["Augmentation", "Boxes"]

_ASPECT = (3 / 4, 4 / 3)
_GROUP = 16
"""Images that share the operations of RandAugment: the library draws them for a whole batch, and a batch should get several draws."""


@dataclass(frozen=True)
class Boxes:
    """The random crop of each image.

    Attributes:
        size_B2: [B, 2], width and height, as shares of the largest part that has the input's aspect ratio.
        place_B2: [B, 2], horizontal and vertical position (0..1) within the room that the crop leaves in the whole image.
    """

    size_B2: Tensor
    place_B2: Tensor

    def within(self, part: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """Centres [B, 2] and sizes [B, 2] as shares of the whole image; ``part`` is the fitting part's width and height, likewise."""
        size_B2 = self.size_B2 * torch.tensor(part)
        return size_B2 / 2 + (1 - size_B2) * self.place_B2, size_B2


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random augmentation of training images, independent for each image of a batch.

    Attributes:
        shift: largest shift along each axis, as a share of the image's side (0..1).
        scale: largest zoom in or out, as a share (0.1: between 0.9 and 1.1 times the size; below 1).
        flip: whether half of the images are mirrored left to right. Wrong for digits, letters and traffic signs.
        crop_scale: smallest area of a random crop, as a share of the largest part of the image that has the input's aspect ratio. The
            crop's aspect ratio differs by a factor of 3/4 to 4/3 (Szegedy et al., CVPR 2015, whose value is 0.08). 1 does not crop.
        colour: largest change of brightness, contrast and saturation, as a share (0.4: between 0.6 and 1.4 times).
        rand_augment: number of RandAugment operations (Cubuk et al., 2020) on each image; 0 is none.
        rand_augment_magnitude: their magnitude, 0..30.
        mixup: share of the batches whose images and labels are blended pairwise (Zhang et al., ICLR 2018), with uniformly drawn weights.
        cutmix: share of the batches in which a part of each image is replaced by another image's (Yun et al., ICCV 2019).

    Raises:
        DataError: an impossible value.
    """

    shift: float = 0.0
    scale: float = 0.0
    flip: bool = False
    crop_scale: float = 1.0
    colour: float = 0.0
    rand_augment: int = 0
    rand_augment_magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "scale", "colour"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise DataError(
                    f"an augmentation's {name} must be a share in 0..1 (1 excluded), but is {value}; 0.1 is a common choice", key=name
                )
        if not 0 < self.crop_scale <= 1:
            raise DataError(
                f"an augmentation's crop_scale must be in 0..1 (0 excluded), but is {self.crop_scale}; 0.35 is a common choice",
                key="crop_scale",
            )
        if self.mixup < 0 or self.cutmix < 0 or self.mixup + self.cutmix > 1:
            raise DataError(
                f"an augmentation's mixup and cutmix must be shares that sum to at most 1, but are {self.mixup} and {self.cutmix}; "
                "lower them",
                key=max(("mixup", "cutmix"), key=lambda name: float(getattr(self, name))),
            )
        if self.rand_augment < 0 or not 0 <= self.rand_augment_magnitude <= 30:
            raise DataError(
                f"an augmentation's rand_augment must be at least 0 and its magnitude in 0..30, but are {self.rand_augment} and "
                f"{self.rand_augment_magnitude}; 2 and 9 are common",
                key="rand_augment" if self.rand_augment < 0 else "rand_augment_magnitude",
            )

    # -- geometry -----------------------------------------------------------------------------------------------------

    def boxes(self, batch: int, generator: torch.Generator) -> Boxes | None:
        """Draw the crops of ``batch`` images by ``generator`` (on the CPU); None without crops."""
        if self.crop_scale == 1:
            return None
        area_B = self.crop_scale + (1 - self.crop_scale) * torch.rand(batch, generator=generator)
        low, high = (math.log(ratio) for ratio in _ASPECT)
        ratio_B = torch.exp(low + (high - low) * torch.rand(batch, generator=generator))
        size_B2 = torch.stack([(area_B * ratio_B).sqrt(), (area_B / ratio_B).sqrt()], 1).clamp(max=1)
        return Boxes(size_B2, torch.rand(batch, 2, generator=generator))

    def __call__(
        self,
        x_BCHW: Tensor,
        generator: torch.Generator,
        crops: tuple[Tensor, Tensor] | None = None,
        resolution: Resolution | None = None,
    ) -> Tensor:
        """Crop, shift, zoom and mirror each image by one bilinear resampling; border pixels are repeated outside the image.

        Args:
            x_BCHW: the images.
            generator: random generator, on the CPU.
            crops: centres and sizes of crops, as of ``Boxes.within``; None does not crop.
            resolution: height and width of the result in pixels; None keeps the images' size.

        Returns:
            The augmented images, [B, C, H, W].
        """
        if not (self.shift or self.scale or self.flip or crops):
            return x_BCHW
        batch = len(x_BCHW)
        zoom_B1 = 1 + self.scale * (2 * torch.rand(batch, 1, generator=generator) - 1)
        # Grid coordinates run from -1 to 1, so a shift by a share of the side is twice that share.
        move_B2 = 2 * self.shift * (2 * torch.rand(batch, 2, generator=generator) - 1)
        reach_B2 = 1 / zoom_B1.expand(batch, 2)
        if crops is not None:
            middle_B2, size_B2 = crops
            reach_B2, move_B2 = reach_B2 * size_B2, move_B2 * size_B2 + 2 * middle_B2 - 1
        mirrored_B = torch.rand(batch, generator=generator) < 0.5 if self.flip else torch.zeros(batch, dtype=torch.bool)
        matrix = torch.zeros(batch, 2, 3)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = torch.where(mirrored_B, -1.0, 1.0) * reach_B2[:, 0], reach_B2[:, 1], move_B2
        size = x_BCHW.shape[2:] if resolution is None else sides(resolution)
        grid = F.affine_grid(moved(matrix, x_BCHW.device), [batch, x_BCHW.shape[1], *size], align_corners=False)
        return F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)

    # -- colours and mixing -------------------------------------------------------------------------------------------

    @property
    def recolours(self) -> bool:
        """Whether ``recolour`` does anything."""
        return self.colour > 0 or self.rand_augment > 0

    def recolour(self, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Change colours of images in 0..1, and apply RandAugment. Grey images stay grey, and alpha is not changed.

        Args:
            x_BCHW: the images.
            generator: decides the changes.

        Raises:
            DataError: the number of channels has no colours, or images are RGBA with RandAugment, which would not move alpha along.
            MissingExtraError: the extra ``augment`` is not installed.
        """
        if not self.recolours:
            return x_BCHW
        _check_colours(x_BCHW.shape[1], alpha=not self.rand_augment)
        library = _kornia()
        x_BCHW, alpha_BAHW = x_BCHW[:, :3], x_BCHW[:, 3:]
        grey = x_BCHW.shape[1] == 1
        if grey:
            x_BCHW = x_BCHW.repeat(1, 3, 1, 1)
        with borrowed_randomness(generator, x_BCHW.device):
            if self.colour:
                x_BCHW = library.ColorJiggle(self.colour, self.colour, self.colour)(x_BCHW)
            if self.rand_augment:
                augment = library.auto.RandAugment(self.rand_augment, self.rand_augment_magnitude)
                x_BCHW = torch.cat([augment(group) for group in x_BCHW.split(_GROUP)])
            torch.randint(2**62, (), out=(drawn := torch.empty((), dtype=torch.int64)))
        generator.manual_seed(int(drawn))  # so that later draws do not repeat the library's
        if grey:
            x_BCHW = x_BCHW[:, :1]
        if alpha_BAHW.shape[1]:
            x_BCHW = torch.cat([x_BCHW, alpha_BAHW], dim=1)
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def mix(self, x_BCHW: Tensor, y_B: Tensor, num_classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Apply mixup or cutmix at random; if the batch is mixed, labels become shares, float32 [B, K].

        Args:
            x_BCHW: the images.
            y_B: their classes, int64.
            num_classes: K.
            generator: decides what is mixed with what.

        Raises:
            MissingExtraError: the extra ``augment`` is not installed.
        """
        if not (self.mixup or self.cutmix):
            return x_BCHW, y_B
        library = _kornia()
        lot = float(torch.rand((), generator=generator))
        if lot >= self.mixup + self.cutmix:
            return x_BCHW, y_B
        mixer = (
            library.RandomMixUpV2(data_keys=["input", "class"])
            if lot < self.mixup
            else library.RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)
        )
        with borrowed_randomness(generator, x_BCHW.device):
            mixed, told = mixer(x_BCHW, torch.arange(len(x_BCHW), device=x_BCHW.device))
        own_B, other_B, weight_B = told.reshape(-1, 3).unbind(1)
        # The library returns the other image's weight for mixup, but the image's own weight for cutmix, as lambda in the papers.
        share = (weight_B if lot < self.mixup else 1 - weight_B)[:, None].to(x_BCHW.dtype)
        whole = F.one_hot(y_B, num_classes) if y_B.ndim == 1 else y_B.to(share.dtype)
        targets = (1 - share) * whole[own_B.long()] + share * whole[other_B.long()]
        return mixed.contiguous(memory_format=torch.channels_last), targets.float()


def _check_colours(channels: int, *, alpha: bool) -> None:
    if channels in (1, 3) or (channels == 4 and alpha):
        return
    rule = "changing colours needs images of 1, 3 or 4 channels" if alpha else "RandAugment needs images of 1 or 3 channels"
    keys = "colour = 0" if alpha else "rand_augment = 0"
    raise DataError(f"{rule}, but these have {channels}; set {keys} and use shift, scale, flip and crop_scale")


def _kornia() -> Any:
    try:
        library = importlib.import_module("kornia.augmentation")
        importlib.import_module("kornia.augmentation.auto")
    except ImportError as error:
        raise MissingExtraError("changing colours, RandAugment, mixup and cutmix", "augment") from error
    return library
