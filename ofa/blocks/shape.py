"""Shape: of one input of a block, without the batch."""

from __future__ import annotations

import math

from ofa.resolution import Resolution, pixels

__all__ = ["Shape"]


class Shape(tuple[int, ...]):
    """(C, H, W) of an image, (T, D) of tokens, or (C,) of a vector; it equals the tuple of its sizes."""

    __slots__ = ()

    def __new__(cls, *sizes: int) -> Shape:
        """A shape of these sizes."""
        return super().__new__(cls, sizes)

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    @property
    def channels(self) -> int:
        """C, or D of tokens."""
        return self[0] if len(self) == 3 else self[-1]

    @property
    def height(self) -> int:
        """H, or T of tokens; 1 of a vector."""
        return self[-2] if len(self) > 1 else 1

    @property
    def width(self) -> int:
        """W; 1 of tokens and of a vector."""
        return self[2] if len(self) == 3 else 1

    @property
    def size(self) -> Resolution:
        """Height and width as a resolution: a square is one number."""
        return self.height if self.height == self.width else (self.height, self.width)

    @property
    def positions(self) -> int:
        """Pixels or tokens."""
        return self.height * self.width

    @property
    def values(self) -> int:
        """Numbers in all."""
        return math.prod(self)

    @property
    def extent(self) -> str:
        """How large it is without its channels, for people: ``56 px``, ``56x32 px`` or ``196 tokens``."""
        return f"{self.height} tokens" if len(self) == 2 else pixels(self.size)

    @property
    def words(self) -> str:
        """For people, such as ``24 channels of 56 px``."""
        return f"{self.channels} channels of {self.extent}"

    def of_channels(self, channels: int) -> Shape:
        """The same positions with other channels."""
        return Shape(channels, *self[1:]) if len(self) == 3 else Shape(*self[:-1], channels)

    def strided(self, kernel: int, stride: int) -> Shape:
        """What a window of ``kernel`` pixels a side makes of an image that is padded by ``kernel // 2`` on every side."""
        channels, *pixels = self
        return Shape(channels, *((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in pixels))
