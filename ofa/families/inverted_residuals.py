"""Stages of inverted residual blocks, common to MobileNetV3 and ProxylessNAS."""

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
    """Common properties of the blocks of one stage.

    Attributes:
        width: output channels of the stage.
        stride: of the first block.
        activation: of all blocks.
        squeeze_excite: whether blocks have a squeeze-excite gate.
    """

    width: int
    stride: int
    activation: Activation
    squeeze_excite: bool = False


def place_inverted_residuals(placer: Placer, channels: int, plans: Sequence[StagePlan], arch: Arch, *, norm_eps: float = 1e-5) -> int:
    """Place the blocks of all stages of ``arch``.

    A block's gene ``expand`` is the ratio of its depthwise channels to its input channels, ``kernel`` the side of its depthwise kernel.

    Args:
        placer: collects the blocks.
        channels: input channels of the first stage.
        plans: one per stage.
        arch: whose genes decide.
        norm_eps: epsilon of the batch norms.

    Returns:
        The output channels of the last stage.
    """
    for s, (plan, genes) in enumerate(zip(plans, arch.stages, strict=True)):
        for b, gene in enumerate(genes):
            placer.place(f"stages.{s}.{b}", _block(plan, channels, plan.stride if b == 0 else 1, gene, norm_eps))
            channels = plan.width
    return channels


# Cached: a training step lowers several new archs, which share nearly all of their blocks.
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
