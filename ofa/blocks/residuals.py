"""Blocks of several convolutions, most with their input added: inverted residuals and bottlenecks."""

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
    """The multiple of ``divisor`` nearest to ``channels``, never below 90 % of it (the rounding of the MobileNet family)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(Block):
    """Expand, depthwise, optional squeeze-excite, project (MobileNetV2 and V3; Sandler et al. 2018, Howard et al. 2019).

    Attributes:
        mid_channels: channels of the depthwise convolution; there is no expanding convolution if ``expand`` is False.
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
            # What a channel is worth is what it projects: the gate sees only an average of it.
            reduce = Chain({"conv": Conv(mid, "squeeze", bias=True, ranks=False), "activation": activation("relu")})
            expand = Chain({"conv": Conv("squeeze", mid, bias=True), "activation": activation("h_sigmoid")})
            parts["squeeze"] = Gate({"pool": global_pool(), "reduce": reduce, "expand": expand})
        parts["project"] = conv_norm_act(Conv(mid, "out"), eps)
        return ResidualChain(parts) if self.residual else Chain(parts)


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Block):
    """Reduce, convolve, expand, with the pooled shortcut of ResNet-D where the shape changes (He et al. 2016 and 2019).

    Attributes:
        mid_channels: channels of the convolution in the middle.
        downsample: whether the shortcut is an average pool and a convolution; otherwise it is the input itself.
    """

    kind: ClassVar[str] = "bottleneck"
    mid_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu"
    downsample: bool = False

    @property
    def axes(self) -> Mapping[str, Axis]:
        # The two inner axes have the same length, but each has an order of channels of its own.
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
