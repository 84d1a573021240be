"""Shape: the shape of one input of a block, without the batch."""

from __future__ import annotations

import math

from ofa.resolution import Resolution, pixels

__all__ = ["Shape"]


class Shape(tuple[int, ...]):
    """(C, H, W) for an image, (T, D) for tokens, or (C,) for a vector; it equals the tuple of its sizes."""

    __slots__ = ()

    def __new__(cls, *sizes: int) -> Shape:
        """A shape of these sizes."""
        return super().__new__(cls, sizes)

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    @property
    def channels(self) -> int:
        """C; D for tokens."""
        return self[0] if len(self) == 3 else self[-1]

    @property
    def height(self) -> int:
        """H; T for tokens, 1 for a vector."""
        return self[-2] if len(self) > 1 else 1

    @property
    def width(self) -> int:
        """W; 1 for tokens and for a vector."""
        return self[2] if len(self) == 3 else 1

    @property
    def size(self) -> Resolution:
        """Height and width as a resolution; a square is a single number."""
        return self.height if self.height == self.width else (self.height, self.width)

    @property
    def positions(self) -> int:
        """Number of pixels or tokens."""
        return self.height * self.width

    @property
    def values(self) -> int:
        """Total number of values."""
        return math.prod(self)

    @property
    def extent(self) -> str:
        """The size without channels, in words: ``56 px``, ``56x32 px`` or ``196 tokens``."""
        return f"{self.height} tokens" if len(self) == 2 else pixels(self.size)

    @property
    def words(self) -> str:
        """The shape in words, such as ``24 channels of 56 px``."""
        return f"{self.channels} channels of {self.extent}"

    def of_channels(self, channels: int) -> Shape:
        """The same shape with another number of channels."""
        return Shape(channels, *self[1:]) if len(self) == 3 else Shape(*self[:-1], channels)

    def strided(self, kernel: int, stride: int) -> Shape:
        """The shape after a window of ``kernel`` x ``kernel`` pixels with padding ``kernel // 2`` and this stride."""
        channels, *pixels = self
        return Shape(channels, *((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in pixels))
