"""Decoding and preprocessing of one image, from any form to a network's input. Every image of every set goes through these functions.

Shapes: H W pixels, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ofa.data.opening import UnreadableError, open_image, reason_of
from ofa.data.rule import Fit, ImageRule, largest_white
from ofa.errors import DataError
from ofa.resolution import Resolution, sides

__all__ = [
    "Array",
    "Box",
    "Bytes",
    "Content",
    "Picture",
    "Values",
    "check_channels",
    "check_white",
    "decoded",
    "draws_smaller",
    "fitting_part",
    "has_white",
    "input_of",
    "picture_from",
    "picture_of",
    "pixels_of",
    "upright_size",
    "values_of",
]

Array = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

Content = bytes | Image.Image | Array
"""An image as its source returns it: an encoded file, a PIL image, or an array [H, W] or [H, W, C]."""

_Part = tuple[float, float, float, float]
"""Left, top, width and height of a part of an image."""

Picture = tuple[Image.Image, ...]
"""An upright image in 0..255: groups of channels of modes L and RGB, all of one size. Alpha is a group of its own, because PIL weights
colours by alpha when it resizes RGBA."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FIRST_TO = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}
"""Modes that PIL converts to some other modes only via these."""
_DRAFTED = ("JPEG", "MPO")
_DRAFT = 4
"""A JPEG is decoded at a half, a quarter or an eighth of its size only if it stays this many times larger than the network's input. Its
pixels then differ by less than one level of 255 on average from a decoding at full size."""


# -- values whose range no format fixes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Values:
    """The range of values of an image whose format does not define white (32-bit integers, floats).

    Attributes:
        whole: whether the values are integers.
        lowest, highest: the range.
    """

    whole: bool
    lowest: float
    highest: float


def values_of(source: Image.Image | Array) -> Values | None:
    """The range of a decoded image whose pixel format does not define white; None for any other.

    Raises:
        UnreadableError: values are not finite, negative or too large to be levels of brightness.
    """
    array = _free_values(source)
    if array is None:
        return None
    lowest, highest = float(array.min()), float(array.max())
    whole = array.dtype.kind in "iu"
    if not np.isfinite(lowest + highest):
        raise UnreadableError("has values that are not finite")
    if lowest < 0:
        raise UnreadableError(f"has negative values, down to {lowest:g}")
    if highest > largest_white(whole=whole):
        raise UnreadableError(f"has values up to {highest:g}, above {largest_white(whole=whole):g}")
    return Values(whole, lowest, highest)


def has_white(source: Image.Image | Array, rule: ImageRule) -> bool:
    """Whether the white of a decoded image is known, by its pixel format or by a rule."""
    array = _free_values(source)
    return array is None or (rule.integer_white if array.dtype.kind in "iu" else rule.float_white) is not None


def _free_values(source: Image.Image | Array) -> Array | None:
    if isinstance(source, np.ndarray):
        return None if source.dtype in (np.bool_, np.uint8, np.uint16) else source
    if source.mode == "F" or (source.mode == "I" and _fixed_white(source) is None):
        return np.asarray(source)
    return None


def _fixed_white(image: Image.Image) -> int | None:
    """White of an image of more than 8 bits, if its format defines it."""
    if image.mode == "I":
        return 2**16 - 1 if image.format in ("PPM", "PNG") else None  # Pillow scales PPM to 16 bits, and PNG has no more
    if not image.mode.startswith("I;16"):
        return None
    bits = getattr(image, "tag_v2", {}).get(258, (16,))
    return 2 ** int(bits[0]) - 1 if len(bits) == 1 and int(bits[0]) in range(9, 17) else 2**16 - 1


def _levels(array: Array, rule: ImageRule) -> Bytes:
    """Levels 0..255 of values of any type."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _scaled(array, 2**16 - 1)
    values = values_of(array)
    assert values is not None
    check_white(values, rule)
    white = rule.integer_white if values.whole else rule.float_white
    if white is None:
        raise UnreadableError(f"has {'32-bit integers' if values.whole else 'floats'}, whose white is unknown")
    return _scaled(array, white)


def check_white(values: Values | None, rule: ImageRule) -> None:
    """Raise UnreadableError if values exceed the white of a rule."""
    if values is not None:
        white = rule.integer_white if values.whole else rule.float_white
        if white is not None and values.highest > white:
            raise UnreadableError(f"has values up to {values.highest:g}, but white is {white:g}")


def _scaled(array: Array, white: float) -> Bytes:
    return np.rint(array * (255 / white)).astype(np.uint8)


# -- to an upright picture --------------------------------------------------------------------------------------------


def picture_of(content: Content, rule: ImageRule, at_least: Resolution | None = None, share: tuple[float, float] = (1.0, 1.0)) -> Picture:
    """An upright picture with the channels of a rule.

    Args:
        content: the image as its source returns it.
        rule: how it is read.
        at_least: the resolution that it will be resized to, so that a JPEG may be decoded at reduced size; None decodes at full size.
        share: the shares of the upright width and height that will be kept.

    Returns:
        The picture.

    Raises:
        UnreadableError: the image cannot be read.
        DataError: its channels cannot be converted to the rule's.
    """
    return picture_from(decoded(content, at_least, share), rule)


def picture_from(source: Image.Image | Array, rule: ImageRule) -> Picture:
    """A picture with the channels of a rule, from a result of ``decoded``; errors as of ``picture_of``."""
    check_channels(source, rule)
    try:
        return _picture(source, rule)
    except UnreadableError:
        raise
    except Exception as error:  # as in open_image
        raise UnreadableError(reason_of(error)) from error


def check_channels(source: Image.Image | Array, rule: ImageRule) -> None:
    """Raise DataError unless a decoded image has the channels of a rule, or channels that can be converted to them."""
    if isinstance(source, Image.Image):
        has, form = len(source.getbands()), f"{source.mode} image"
    else:
        has, form = source.shape[2] if source.ndim == 3 else 1, f"array {list(source.shape)}"
    if (rule.channels in _MODES and has in _MODES) or (isinstance(source, Image.Image) and rule.channels in _MODES):
        return
    if has != rule.channels or isinstance(source, Image.Image):
        raise DataError(
            f"images must have the {rule.channels} channels that the networks read, but one has {has} (an {form}); give arrays "
            f"[H, W, {rule.channels}], or choose a space of {has if has in _MODES or isinstance(source, np.ndarray) else 3} channels"
        )


def decoded(content: Content, at_least: Resolution | None = None, share: tuple[float, float] = (1.0, 1.0)) -> Image.Image | Array:
    """An upright image or an array, of any pixel format; arguments and errors as of ``picture_of``."""
    if isinstance(content, np.ndarray):
        if content.ndim not in (2, 3) or not content.size or content.dtype.kind not in "biuf":
            raise UnreadableError(f"is an array {list(content.shape)} of {content.dtype}, not numbers [H, W] or [H, W, C]")
        return content.astype(content.dtype.newbyteorder("="), copy=False)
    image = open_image(content) if isinstance(content, bytes) else content
    try:
        if at_least is not None:
            _draft(image, at_least, share)
        image.load()
        turn = _TURNS.get(orientation(image))
        return image if turn is None else _turned(image, turn)
    except Exception as error:  # as in open_image
        raise UnreadableError(reason_of(error)) from error


def _turned(image: Image.Image, turn: Image.Transpose) -> Image.Image:
    upright = image.transpose(turn)
    upright.format = image.format
    return upright


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 if there is none or EXIF is damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF is damaged, but the image may be intact
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Upright width and height in pixels of an image, from its header."""
    # Pillow already reports a TIFF's upright size; a PNG may have EXIF at its end, and would be decoded to find it.
    if image.format == "TIFF" or (image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info)):
        return image.size
    return image.size[::-1] if orientation(image) in _LYING else image.size


def draws_smaller(image: Image.Image) -> bool:
    """Whether an image can be decoded at reduced size."""
    return image.format in _DRAFTED


def _draft(image: Image.Image, at_least: Resolution, share: tuple[float, float]) -> None:
    """Let a JPEG be decoded at reduced size, if that is large enough."""
    wanted = [round(_DRAFT * side / part) for side, part in zip(sides(at_least)[::-1], share, strict=True)]
    image.draft("RGB", tuple(wanted[::-1] if upright_size(image) != image.size else wanted))  # type: ignore[arg-type]


def _picture(source: Image.Image | Array, rule: ImageRule) -> Picture:
    if isinstance(source, Image.Image):
        white = _fixed_white(source)
        if white is not None:
            source = _scaled(np.asarray(source), white)
        elif source.mode == "F" or source.mode == "I":
            source = _levels(np.asarray(source), rule)
    if isinstance(source, np.ndarray):
        array = _levels(source, rule)
        array = array[:, :, None] if array.ndim == 2 else array
        if rule.channels not in _MODES:
            return tuple(Image.fromarray(np.ascontiguousarray(array[:, :, channel])) for channel in range(rule.channels))
        source = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))
    return _converted(source, _MODES[rule.channels])


def _converted(image: Image.Image, mode: str) -> Picture:
    if mode != "RGBA" and "transparency" in image.info:
        # Pillow would warn that it cannot keep a transparent colour, which is not needed.
        image = image.copy()
        del image.info["transparency"]
    if image.mode != mode and image.mode in _FIRST_TO:
        image = image.convert(_FIRST_TO[image.mode])
    image = image if image.mode == mode else image.convert(mode)
    if mode != "RGBA":
        return (image,)
    red, green, blue, alpha = image.split()
    return Image.merge("RGB", (red, green, blue)), alpha


def pixels_of(picture: Picture) -> Bytes:
    """uint8 [H, W, C] of a whole picture."""
    arrays = [np.asarray(group) for group in picture]
    return np.concatenate([array if array.ndim == 3 else array[:, :, None] for array in arrays], axis=2)


# -- to a network's input ---------------------------------------------------------------------------------------------


def fitting_part(width: int, height: int, fit: Fit, resolution: Resolution) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels of the part of an image that becomes the input at a resolution."""
    rows, columns = sides(resolution)
    if fit == "stretch":
        return 0, 0, width, height
    if width * rows > height * columns:
        kept = max(1, round(height * columns / rows)), height
    else:
        kept = width, max(1, round(width * rows / columns))
    return (width - kept[0]) // 2, (height - kept[1]) // 2, *kept


@dataclass(frozen=True)
class Box:
    """A random crop. Its size is relative to the fitting part; it may lie anywhere in the image.

    Attributes:
        size: width and height, as shares of the fitting part's.
        place: horizontal and vertical position (0..1), within the room that the crop leaves in the image.
    """

    size: tuple[float, float]
    place: tuple[float, float]

    def within(self, width: int, height: int, part: tuple[float, float]) -> _Part:
        """The crop in pixels, for an image of this size whose fitting part has the width and height ``part``."""
        # In float32, as for images in memory, whose crops are computed by batch.
        whole = np.array([width, height])
        size = np.array(self.size, np.float32) * (np.array(part) / whole).astype(np.float32)
        middle = size / 2 + (1 - size) * np.array(self.place, np.float32)
        (x, y), (across, down) = middle.tolist(), size.tolist()
        return (x - across / 2) * width, (y - down / 2) * height, across * width, down * height


def input_of(content: Content, rule: ImageRule, resolution: Resolution, box: Box | None = None) -> Bytes:
    """Decode, crop and resize an image.

    Args:
        content: the image as its source returns it.
        rule: how it is read.
        resolution: height and width of the result in pixels.
        box: the crop; None takes the part that the rule's ``fit`` defines.

    Returns:
        uint8 [H, W, C].

    Raises:
        UnreadableError, DataError: as of ``picture_of``.
    """
    source = open_image(content) if isinstance(content, bytes) else content
    if isinstance(content, bytes) and isinstance(source, Image.Image) and draws_smaller(source):
        width, height = upright_size(source)
        kept = _kept(width, height, rule, resolution, box)
        picture = picture_of(source, rule, resolution, (kept[2] / width, kept[3] / height))
    else:
        picture = picture_of(source, rule)
        width, height = picture[0].size
        kept = _kept(width, height, rule, resolution, box)
    across, down = picture[0].size[0] / width, picture[0].size[1] / height
    bounds = (
        max(0.0, kept[0] * across),
        max(0.0, kept[1] * down),
        min(float(picture[0].size[0]), (kept[0] + kept[2]) * across),
        min(float(picture[0].size[1]), (kept[1] + kept[3]) * down),
    )
    return pixels_of(tuple(_resized(group, resolution, bounds, alone=box is None) for group in picture))


def _resized(group: Image.Image, resolution: Resolution, bounds: _Part, *, alone: bool) -> Image.Image:
    """A part of a group of channels, resized; with ``alone`` it is cropped first, so that pixels around it do not affect its borders."""
    if alone:
        left, top, right, bottom = math.floor(bounds[0]), math.floor(bounds[1]), math.ceil(bounds[2]), math.ceil(bounds[3])
        if (left, top, right, bottom) != (0, 0, *group.size):
            group = group.crop((left, top, right, bottom))
        bounds = (bounds[0] - left, bounds[1] - top, bounds[2] - left, bounds[3] - top)
    return group.resize(sides(resolution)[::-1], Image.Resampling.BILINEAR, box=bounds)


def _kept(width: int, height: int, rule: ImageRule, resolution: Resolution, box: Box | None) -> _Part:
    """Left, top, width and height in pixels of the part that becomes the input."""
    part = fitting_part(width, height, rule.fit, resolution)
    return part if box is None else box.within(width, height, part[2:])
