"""Resolution: height and width of a network's input, in pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from numbers import Integral

from ofa.errors import SpaceError

__all__ = [
    "Resolution",
    "ascending",
    "aspect",
    "mean_side",
    "parse_resolution",
    "pixels",
    "resolution_to_json",
    "resolutions_to_json",
    "sides",
]

Resolution = int | tuple[int, int]
"""(height, width) of an image in pixels; a square is a single number, so that equal resolutions are equal values."""

_LARGEST_SIDE = 2**14
"""Pixels: larger than any network's input, and small enough for memory."""
_SIDES = re.compile(r"\s*(\d{1,6})\s*(?:[xX×]\s*(\d{1,6})\s*)?")


def sides(resolution: Resolution) -> tuple[int, int]:
    """Height and width in pixels."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def mean_side(resolution: Resolution) -> float:
    """Geometric mean of height and width in pixels: the side of the square of equal area."""
    height, width = sides(resolution)
    return math.sqrt(height * width)


def aspect(resolution: Resolution) -> float:
    """Height divided by width."""
    height, width = sides(resolution)
    return height / width


def parse_resolution(value: object) -> Resolution:
    """Parse a resolution.

    Args:
        value: in pixels: ``224``, ``"224"``, ``"224x160"`` (height x width) or a pair (height, width).

    Raises:
        SpaceError: the value is no resolution, or a side is not between 1 and 16,384.
    """
    parts: list[object]
    if isinstance(value, str):
        match = _SIDES.fullmatch(value)
        parts = [int(part) for part in match.groups() if part] if match else []
    else:
        parts = list(value) if isinstance(value, tuple | list) else [value]
    numbers = [int(part) for part in parts if isinstance(part, Integral) and not isinstance(part, bool) and 0 < int(part) <= _LARGEST_SIDE]
    if len(parts) not in (1, 2) or len(numbers) != len(parts):
        raise SpaceError(
            f"a resolution must be whole pixels from 1 to {_LARGEST_SIDE}, as one side (224) or as height x width (224x160), but is "
            f"{value!r}; write it in one of these forms"
        )
    height, width = numbers[0], numbers[-1]
    return height if height == width else (height, width)


def resolution_to_json(resolution: Resolution) -> int | str:
    """The form of files and results: ``224``, or ``"224x160"`` (height x width)."""
    height, width = sides(resolution)
    return height if height == width else f"{height}x{width}"


def pixels(resolution: Resolution | str) -> str:
    """A resolution, or its JSON form, in words: ``224 px`` or ``224x160 px``."""
    return f"{resolution if isinstance(resolution, str) else resolution_to_json(resolution)} px"


def resolutions_to_json(resolutions: Iterable[Resolution]) -> list[int | str]:
    """The JSON form of each resolution (``resolution_to_json``)."""
    return list(map(resolution_to_json, resolutions))


def ascending(resolutions: Iterable[object]) -> tuple[Resolution, ...]:
    """Sort resolutions by area, then by height, without repeats.

    Args:
        resolutions: in any form that ``parse_resolution`` accepts.

    Raises:
        SpaceError: a value is no resolution.
    """
    return tuple(sorted(set(map(parse_resolution, resolutions)), key=lambda each: (math.prod(sides(each)), sides(each))))
