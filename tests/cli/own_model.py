"""A model of somebody who does not know this project, small enough to be adopted in a second; and things that are no models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Plain", "broken", "model", "number"]

CLASSES = 4

number = 3


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x.relu()))
        return x + y


class Plain(nn.Module):
    """A convolution, two residual blocks and a classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.body = nn.Sequential(_Block(16), _Block(16))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 3, H, W] to [B, classes]."""
        logits: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return logits


def model() -> Plain:
    """The same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Plain(CLASSES)


def broken() -> nn.Module:
    """A function that fails."""
    raise RuntimeError("no such weights")
