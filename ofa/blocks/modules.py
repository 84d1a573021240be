"""Modules with more than one path from input to output: residual, gated, with shortcut, and wired.

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import nn

__all__ = ["AddShortcut", "Gated", "Residual", "Wired"]


class Residual(nn.Sequential):
    """Adds the input to the output of the sequence."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The sum, of the input's shape."""
        body_BCHW: torch.Tensor = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        return body_BCHW + x_BCHW


class Gated(nn.Sequential):
    """Multiplies the input by the gate [B, C, 1, 1] that the sequence computes from it."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The product, of the input's shape."""
        gate_BC11: torch.Tensor = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        return x_BCHW * gate_BC11


class AddShortcut(nn.Module):
    """A sequence of layers plus a shortcut, then an activation.

    Args:
        layers: the sequence, by name.
        shortcut: applied to the input before it is added; None for the input itself.
        activation: applied to the sum.
    """

    def __init__(self, layers: Mapping[str, nn.Module], shortcut: nn.Module | None, activation: nn.Module) -> None:
        super().__init__()
        self._layers = tuple(layers)
        for name, module in layers.items():
            self.add_module(name, module)
        self.downsample = shortcut
        self.activation = activation

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, outputs, H', W']."""
        y_BCHW = x_BCHW
        for name in self._layers:
            y_BCHW = getattr(self, name)(y_BCHW)
        shortcut_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        activated: torch.Tensor = self.activation(y_BCHW + shortcut_BCHW)
        return activated


class Wired(nn.Sequential):
    """Modules in a directed acyclic graph; the input of each is the sum of the outputs of others.

    Args:
        order: (dotted name, names of the modules that feed it), in execution order; a name that is no module means the input.
    """

    def __init__(self, order: Sequence[tuple[str, Sequence[str]]]) -> None:
        super().__init__()
        self._order = tuple(order)
        self._last = {name: number for number, (_, names) in enumerate(order) for name in names}

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Run all modules in order; returns the output of the last."""
        alive: dict[str, torch.Tensor] = {}
        result = input
        for number, (place, names) in enumerate(self._order):
            summed = reduce(operator.add, [alive.get(name, input) for name in names]) if names else input
            alive = {name: value for name, value in alive.items() if self._last.get(name, 0) > number}
            result = alive[place] = self.get_submodule(place)(summed)
        return result
