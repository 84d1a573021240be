"""Blocks with a single convolution, and max pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ofa.blocks.block import Axis, Block
from ofa.blocks.parts import Activation, Chain, Conv, Part, ResidualChain, conv_norm_act, max_pool

__all__ = ["ConvBlock", "MaxPool", "ResidualConv"]


@dataclass(frozen=True, kw_only=True)
class ConvBlock(Block):
    """Convolution, batch norm, activation.

    Attributes:
        kernel: side of the kernel in pixels.
        stride: in both directions.
        activation: after the batch norm.
    """

    kind: ClassVar[str] = "conv"
    kernel: int = 1
    stride: int = 1
    activation: Activation = "relu"

    @property
    def axes(self) -> Mapping[str, Axis]:
        return {**super().axes, "kernel": Axis(self.kernel, "centre")}

    @property
    def body(self) -> Part:
        return Chain({"conv": conv_norm_act(Conv("in", "out", kernel="kernel", stride=self.stride), self.norm_eps, self.activation)})


@dataclass(frozen=True, kw_only=True)
class ResidualConv(Block):
    """A convolution with batch norm and activation, added to its input (the elastic part of the ResNet-D stem).

    Attributes:
        kernel: side of the kernel in pixels.
        activation: after the batch norm.
    """

    kind: ClassVar[str] = "residual_conv"
    kernel: int = 3
    activation: Activation = "relu"

    @property
    def axes(self) -> Mapping[str, Axis]:
        return {**super().axes, "kernel": Axis(self.kernel, "centre")}

    @property
    def body(self) -> Part:
        return ResidualChain({"conv": conv_norm_act(Conv("in", "out", kernel="kernel"), self.norm_eps, self.activation)})


@dataclass(frozen=True, kw_only=True)
class MaxPool(Block):
    """Max pooling with a 3x3 window.

    Attributes:
        stride: in both directions.
    """

    kind: ClassVar[str] = "max_pool"
    stride: int = 2

    @property
    def body(self) -> Part:
        return max_pool(3, self.stride)
