"""Residual blocks of several convolutions: inverted residuals and bottlenecks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ofa.blocks.block import Axis, Block
from ofa.blocks.parts import (
    Activation,
    Chain,
    Conv,
    Depthwise,
    Gate,
    Part,
    ResidualChain,
    Shortcut,
    activation,
    average_pool,
    conv_norm_act,
    global_pool,
)

__all__ = ["Bottleneck", "InvertedResidual", "make_divisible"]


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, never below 90 % of ``channels`` (rounding of the MobileNet family)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(Block):
    """Expansion, depthwise convolution, optional squeeze-excite, projection (MobileNetV2: Sandler et al., 2018; V3: Howard et al., 2019).

    Attributes:
        mid_channels: channels of the depthwise convolution.
        kernel: side of the depthwise kernel in pixels.
        stride: of the depthwise convolution.
        activation: after the expansion and the depthwise convolution.
        expand: whether there is an expanding 1x1 convolution; otherwise ``mid_channels`` must equal ``in_channels``.
        squeeze_excite: whether the depthwise output is gated (reduction 4, hard sigmoid).
        residual: whether the input is added to the output.
    """

    kind: ClassVar[str] = "inverted_residual"
    mid_channels: int
    kernel: int
    stride: int = 1
    activation: Activation = "relu"
    expand: bool = True
    squeeze_excite: bool = False
    residual: bool = False

    @property
    def axes(self) -> Mapping[str, Axis]:
        mid = {"mid": Axis(self.mid_channels)} if self.expand else {}
        squeeze = {"squeeze": Axis(make_divisible(self.mid_channels // 4))} if self.squeeze_excite else {}
        return {**super().axes, **mid, **squeeze, "kernel": Axis(self.kernel, "centre")}

    @property
    def body(self) -> Part:
        mid, eps = "mid" if self.expand else "in", self.norm_eps
        depthwise = Depthwise(mid, mid, kernel="kernel", stride=self.stride)
        parts: dict[str, Part] = {"expand": conv_norm_act(Conv("in", mid), eps, self.activation)} if self.expand else {}
        parts["depthwise"] = conv_norm_act(depthwise, eps, self.activation)
        if self.squeeze_excite:
            # Only the projection ranks channels by importance: the gate reads only their averages.
            reduce = Chain({"conv": Conv(mid, "squeeze", bias=True, ranks=False), "activation": activation("relu")})
            expand = Chain({"conv": Conv("squeeze", mid, bias=True), "activation": activation("h_sigmoid")})
            parts["squeeze"] = Gate({"pool": global_pool(), "reduce": reduce, "expand": expand})
        parts["project"] = conv_norm_act(Conv(mid, "out"), eps)
        return ResidualChain(parts) if self.residual else Chain(parts)


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolution, with the pooled shortcut of ResNet-D where the shape changes (He et al., 2016 and 2019).

    Attributes:
        mid_channels: channels of the middle convolution.
        kernel: side of the middle kernel in pixels.
        stride: of the middle convolution.
        activation: after the first two convolutions and after the sum.
        downsample: whether the shortcut is average pooling (if there is a stride) and a 1x1 convolution; otherwise it is the identity.
    """

    kind: ClassVar[str] = "bottleneck"
    mid_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu"
    downsample: bool = False

    @property
    def axes(self) -> Mapping[str, Axis]:
        # The two inner axes have the same length, but independent orders of channels.
        inner = {"mid1": Axis(self.mid_channels), "mid2": Axis(self.mid_channels)}
        return {**super().axes, **inner, "kernel": Axis(self.kernel, "centre")}

    @property
    def body(self) -> Part:
        eps = self.norm_eps
        layers = Chain(
            {
                "reduce": conv_norm_act(Conv("in", "mid1"), eps, self.activation),
                "conv": conv_norm_act(Conv("mid1", "mid2", kernel="kernel", stride=self.stride), eps, self.activation),
                "expand": conv_norm_act(Conv("mid2", "out"), eps),
            }
        )
        shortcut = conv_norm_act(Conv("in", "out"), eps)
        if self.stride > 1:
            shortcut = Chain({"pool": average_pool(self.stride), **shortcut.parts})
        return Shortcut(layers, shortcut if self.downsample else None, activation(self.activation))
