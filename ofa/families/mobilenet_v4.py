"""MobileNetV4 (Qin et al., ECCV 2024, arXiv 2404.10518) as an elastic family: universal inverted bottlenecks, convolutions only.

As in the paper: a 3x3 convolution of stride 2; fused inverted bottlenecks at large image sizes; then universal inverted bottlenecks whose
two depthwise kernels are 0 (absent), 3 or 5 (section 3, and the search of section 5); ReLU and batch norm everywhere; no squeeze-excite;
and a head of a 1x1 convolution to 960 channels, pooling, and a 1x1 convolution to 1280 (tables of MNv4-Conv-S and -M in the appendix). The
space contains the block types of both models, with widths between theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from ofa.arch import Arch, Genes
from ofa.blocks import (
    Block,
    Classifier,
    ConvBlock,
    FusedInvertedBottleneck,
    PlacedBlock,
    PooledConv,
    UniversalInvertedBottleneck,
    make_divisible,
)
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage

__all__ = ["SPACES", "MobileNetV4Space", "make_space"]


@dataclass(frozen=True, kw_only=True)
class MobileNetV4Space(Space):
    """The networks of one MobileNetV4 supernet.

    A network has several levels, each with one image size. A fused level is one stage, whose blocks have the gene ``expand`` only. Every
    other level is two stages. The first stage is one block, which has the level's stride and therefore always a middle depthwise
    convolution (``stride_kernel``, never 0). The second stage is the remaining blocks, whose ``middle_kernel`` may be 0. So every network
    has a convolution for its stride, and all genes stay independent. Both stages have the genes ``first_kernel`` and ``expand``, the ratio
    of a block's inner to its input channels. The network's genes ``level_N_width``, with N from 1, are the channels of each level.

    Attributes:
        stem_width: channels of the first convolution.
        stem_stride: stride of the first convolution: 2, or 1 for images of few pixels.
        strides: stride of each level's first block.
        fused_levels: number of fused levels, from the first.
        head_widths: channels of the last convolutions before and after pooling.
    """

    stem_width: int
    stem_stride: int = 2
    strides: tuple[int, ...]
    fused_levels: int
    head_widths: tuple[int, int]

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of ``arch``, from the image to the logits."""
        self.check(arch)
        placer, channels = Placer(self, arch), self.stem_width
        placer.place("stem.conv", ConvBlock(in_channels=self.in_channels, out_channels=channels, kernel=3, stride=self.stem_stride))
        stages = iter(enumerate(arch.stages))
        for level, stride in enumerate(self.strides):
            width = int(arch.network[_width_gene(level)])
            for s, blocks in islice(stages, 1 if level < self.fused_levels else 2):
                for b, genes in enumerate(blocks):
                    placer.place(f"stages.{s}.{b}", _block(channels, width, stride, genes))
                    channels, stride = width, 1
        expanded, mixed = self.head_widths
        placer.place("head.expand", ConvBlock(in_channels=channels, out_channels=expanded))
        placer.place("head.mix", PooledConv(in_channels=expanded, out_channels=mixed))
        placer.place("classifier", Classifier(in_channels=mixed, out_channels=self.num_classes))
        return placer.placed


def _width_gene(level: int) -> str:
    return f"level_{level + 1}_width"


# Cached: a training step lowers several new archs, which share nearly all of their blocks.
@lru_cache(maxsize=4096)
def _block(channels: int, width: int, stride: int, genes: Genes) -> Block:
    mid, residual = make_divisible(channels * genes["expand"]), stride == 1 and channels == width
    if "first_kernel" not in genes:
        return FusedInvertedBottleneck(in_channels=channels, mid_channels=mid, out_channels=width, stride=stride, residual=residual)
    return UniversalInvertedBottleneck(
        in_channels=channels,
        mid_channels=mid,
        out_channels=width,
        first_kernel=int(genes["first_kernel"]),
        middle_kernel=int(genes["stride_kernel" if "stride_kernel" in genes else "middle_kernel"]),
        stride=stride,
        residual=residual,
    )


def make_space(
    name: str,
    resolutions: tuple[int, ...],
    *,
    widths: tuple[tuple[int, ...], ...],
    depths: tuple[tuple[int, ...], ...],
    strides: tuple[int, ...],
    fused_levels: int = 1,
    stem: tuple[int, int] = (32, 2),
    head: tuple[int, int] = (960, 1280),
    kernels: tuple[int, ...] = (3, 5),
    expands: tuple[int, ...] = (2, 4, 6),
    num_classes: int = 1000,
    in_channels: int = 3,
) -> MobileNetV4Space:
    """Create a MobileNetV4 space.

    Args:
        name: by which archs, tables and weights refer to the space.
        resolutions: sides of the square input in pixels.
        widths: channels to choose from, by level.
        depths: numbers of blocks to choose from, by level; for levels that are not fused, without the first (strided) block.
        strides: stride of each level's first block.
        fused_levels: number of fused levels, from the first.
        stem: channels and stride of the first convolution.
        head: channels of the last convolutions before and after pooling.
        kernels: sides of depthwise kernels to choose from, in pixels, besides 0 (absent).
        expands: ratios of inner to input channels to choose from.
        num_classes: number of logits.
        in_channels: channels of the images.
    """
    expand, first = Gene("expand", expands), Gene("first_kernel", (0, *kernels))
    strided = Stage((1,), (first, Gene("stride_kernel", kernels), expand))
    stages: list[Stage] = []
    for level, choices in enumerate(depths):
        plain = (first, Gene("middle_kernel", (0, *kernels)), expand)
        stages += [Stage(choices, (expand,))] if level < fused_levels else [strided, Stage(choices, plain)]
    return MobileNetV4Space(
        name=name,
        resolutions=resolutions,
        stages=tuple(stages),
        network=tuple(Gene(_width_gene(level), choices) for level, choices in enumerate(widths)),
        num_classes=num_classes,
        in_channels=in_channels,
        stem_width=stem[0],
        stem_stride=stem[1],
        strides=strides,
        fused_levels=fused_levels,
        head_widths=head,
    )


SPACES = (
    make_space(
        "ofa-mbv4",
        (128, 160, 192, 224, 256),
        widths=((32,), (48, 80), (96, 160), (160, 256)),
        depths=((1,), (1, 2, 3), (3, 5, 7), (3, 5, 7)),
        strides=(2, 2, 2, 2),
    ),
    make_space(
        "ofa-mbv4-tiny",
        (16, 32),
        widths=((16,), (24, 32)),
        depths=((1,), (1, 2)),
        strides=(2, 2),
        stem=(8, 2),
        head=(96, 128),
        kernels=(3, 5),
        expands=(2, 4),
        num_classes=10,
    ),
)
