"""The image rule: how images become a network's pixels, as a value that a run, its bundles and later commands share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from ofa.errors import DataError
from ofa.reading import parse_json

__all__ = ["Fit", "ImageRule"]

Fit = Literal["crop", "stretch"]

_INTEGER_WHITES = (255, 2**16 - 1, 2**24 - 1, 2**31 - 1)
_FLOAT_WHITES = (1.0, 255.0, 65535.0)


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """How every image of a set is read.

    An image is rotated upright by its EXIF orientation, converted to 0..255 and to ``channels``, cropped or stretched to the aspect ratio
    of the network's input, and resized bilinearly, with antialiasing when it is downscaled. For pixels of 8 and 16 bits, white is defined
    by the format. For 32-bit integers and floats, white is the largest value of the set, rounded up to a usual one; it is stored here for
    later images.

    Attributes:
        channels: 1 is grey, 3 RGB, 4 RGBA (opaque where an image has no alpha); any other number is read from arrays with that many.
        fit: how an image gets the aspect ratio of the input: ``crop`` takes the largest central part of that ratio, ``stretch`` resizes
            both sides independently.
        integer_white: value of white in images of 32-bit integers: 255, 65535, 2^24-1 or 2^31-1; None if the set has none.
        float_white: value of white in images of floats: 1, 255 or 65535; None if the set has none.

    Raises:
        DataError: an impossible value.
    """

    channels: int = 3
    fit: Fit = "crop"
    integer_white: int | None = None
    float_white: float | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.channels, int) or self.channels < 1:
            raise DataError(f"images must have at least 1 channel, but channels is {self.channels!r}; 3 is usual")
        if self.fit not in get_args(Fit):
            raise DataError(f"fit must be {' or '.join(get_args(Fit))}, but is {self.fit!r}; crop is usual")
        for name, kinds in (("integer_white", int), ("float_white", (int, float))):
            value = getattr(self, name)
            if value is not None and not (_is_number(value, kinds) and 0 < value < float("inf")):
                raise DataError(f"{name} must be a value above 0, but is {value!r}; leave it out to have it found")

    def to_json(self) -> dict[str, int | float | str | None]:
        """The attributes, as values of a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what ``to_json`` returned.

        Raises:
            DataError: another object, or impossible values.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, Mapping) or not set(value) <= known:
            raise DataError(f"an image rule must have keys of {', '.join(sorted(known))}, but is {value!r}; write it so")
        return cls(**{str(key): entry for key, entry in value.items()})

    def __str__(self) -> str:
        return json.dumps(self.to_json())

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what ``str`` returned.

        Raises:
            DataError: another text.
        """
        what = f"an image rule, {text[:80]!r},"
        return cls.from_json(parse_json(text, what=what, remedy="write it as str returns it", error=DataError))


def smallest_white(highest: float, *, whole: bool) -> float:
    """The smallest usual white that is at least the highest value of a set of floats or, with ``whole``, of integers."""
    for white in _INTEGER_WHITES if whole else _FLOAT_WHITES:
        if highest <= white:
            return white
    raise ValueError(f"no white holds {highest}")


def largest_white(*, whole: bool) -> float:
    """The largest value that is accepted as a level of brightness."""
    return (_INTEGER_WHITES if whole else _FLOAT_WHITES)[-1]


def _is_number(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
