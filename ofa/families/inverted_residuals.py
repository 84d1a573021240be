"""Stages of inverted residual blocks, which MobileNetV3 and ProxylessNAS share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ofa.arch import Arch, Genes
from ofa.blocks import Activation, InvertedResidual, make_divisible
from ofa.families.placing import Placer

__all__ = ["StagePlan", "place_inverted_residuals"]


@dataclass(frozen=True)
class StagePlan:
    """What the blocks of one stage share.

    Attributes:
        width: channels that the stage puts out.
        stride: stride of its first block.
    """

    width: int
    stride: int
    activation: Activation
    squeeze_excite: bool = False


def place_inverted_residuals(placer: Placer, channels: int, plans: Sequence[StagePlan], arch: Arch, *, norm_eps: float = 1e-5) -> int:
    """Place the blocks of every stage of ``arch`` after ``channels`` channels; returns the channels after the last.

    A block's gene ``expand`` is the ratio of its depthwise channels to its input channels, ``kernel`` the depthwise kernel.
    """
    for s, (plan, genes) in enumerate(zip(plans, arch.stages, strict=True)):
        for b, gene in enumerate(genes):
            placer.place(f"stages.{s}.{b}", _block(plan, channels, plan.stride if b == 0 else 1, gene, norm_eps))
            channels = plan.width
    return channels


# A training step lowers several new archs, and they share nearly all of their blocks.
@lru_cache(maxsize=4096)
def _block(plan: StagePlan, channels: int, stride: int, gene: Genes, norm_eps: float) -> InvertedResidual:
    return InvertedResidual(
        in_channels=channels,
        mid_channels=make_divisible(round(channels * gene["expand"])),
        out_channels=plan.width,
        kernel=int(gene["kernel"]),
        stride=stride,
        activation=plan.activation,
        squeeze_excite=plan.squeeze_excite,
        residual=stride == 1 and channels == plan.width,
        norm_eps=norm_eps,
    )
