"""The inverted bottlenecks of MobileNetV4 (Qin et al., ECCV 2024, arXiv 2404.10518)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ofa.blocks.block import Axis, Block
from ofa.blocks.parts import Activation, Chain, Conv, Depthwise, Part, ResidualChain, conv_norm_act

__all__ = ["FusedInvertedBottleneck", "UniversalInvertedBottleneck"]


@dataclass(frozen=True, kw_only=True)
class UniversalInvertedBottleneck(Block):
    """Optional depthwise, expansion, optional depthwise, projection (section 3 of the paper). A kernel of 0 is absent.

    ============  =============  ===============================================
    first_kernel  middle_kernel  block
    ============  =============  ===============================================
    absent        present        inverted bottleneck (MobileNetV2)
    present       absent         ConvNeXt-like: spatial mixing before expansion
    present       present        ExtraDW
    absent        absent         feed-forward network of a transformer
    ============  =============  ===============================================

    The first depthwise convolution and the projection have no activation.

    Attributes:
        mid_channels: channels between the expanding and the projecting convolution.
        first_kernel: side in pixels of the depthwise kernel before the expansion, or 0.
        middle_kernel: side in pixels of the depthwise kernel after the expansion, or 0.
        stride: of the middle depthwise convolution, as in all strided blocks of the paper; of the first one if the middle one is absent.
        activation: after the expansion and the middle depthwise convolution.
        residual: whether the input is added to the output.

    Raises:
        ValueError: the stride is above 1, but there is no depthwise convolution.
    """

    kind: ClassVar[str] = "universal_inverted_bottleneck"
    mid_channels: int
    first_kernel: int
    middle_kernel: int
    stride: int = 1
    activation: Activation = "relu"
    residual: bool = False

    def __post_init__(self) -> None:
        if self.stride > 1 and not (self.first_kernel or self.middle_kernel):
            raise ValueError(
                f"a universal inverted bottleneck with a stride must have a depthwise convolution, but has stride {self.stride} and both "
                "kernels are 0; give it a kernel"
            )

    @property
    def axes(self) -> Mapping[str, Axis]:
        kernels = {"first": self.first_kernel, "middle": self.middle_kernel}
        present = {name: Axis(kernel, "centre") for name, kernel in kernels.items() if kernel}
        return {**super().axes, "mid": Axis(self.mid_channels), **present}

    @property
    def body(self) -> Part:
        eps = self.norm_eps
        parts: dict[str, Part] = {}
        if self.first_kernel:
            stride = 1 if self.middle_kernel else self.stride
            parts["first"] = conv_norm_act(Depthwise("in", "in", kernel="first", stride=stride), eps)
        parts["expand"] = conv_norm_act(Conv("in", "mid"), eps, self.activation)
        if self.middle_kernel:
            parts["middle"] = conv_norm_act(Depthwise("mid", "mid", kernel="middle", stride=self.stride), eps, self.activation)
        parts["project"] = conv_norm_act(Conv("mid", "out"), eps)
        return ResidualChain(parts) if self.residual else Chain(parts)


@dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneck(Block):
    """A dense kxk convolution that expands, and a projection; faster than depthwise convolutions if there are few channels.

    Attributes:
        mid_channels: channels between the two convolutions.
        kernel: side in pixels of the first convolution's kernel.
        stride: of the first convolution.
        residual: whether the input is added to the output.
    """

    kind: ClassVar[str] = "fused_inverted_bottleneck"
    mid_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu"
    residual: bool = False

    @property
    def axes(self) -> Mapping[str, Axis]:
        return {**super().axes, "mid": Axis(self.mid_channels), "kernel": Axis(self.kernel, "centre")}

    @property
    def body(self) -> Part:
        expand = Conv("in", "mid", kernel="kernel", stride=self.stride)
        project = conv_norm_act(Conv("mid", "out"), self.norm_eps)
        parts = {"expand": conv_norm_act(expand, self.norm_eps, self.activation), "project": project}
        return ResidualChain(parts) if self.residual else Chain(parts)
