"""ResNet50-D (He et al., CVPR 2019) with elastic depth, bottleneck ratio, stage width and stem, as in MIT's once-for-all package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ofa.arch import Arch
from ofa.blocks import Bottleneck, Classifier, ConvBlock, MaxPool, PlacedBlock, ResidualConv, make_divisible
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage

__all__ = ["SPACES", "ResNetSpace", "make_space"]


@dataclass(frozen=True, kw_only=True)
class ResNetSpace(Space):
    """The networks of one ResNet-D supernet.

    Genes of the network are ``stem_depth`` (2 or 3 convolutions) and the width multipliers ``stem_inner_width``, ``stem_width`` and
    ``stage_N_width``, with N from 1. The gene of a block is ``expand``, the ratio of its inner to its output channels.

    Attributes:
        multipliers: of all widths, ascending. If two of them round to the same channels, a gene has only the smaller one, so that
            equal networks are equal archs.
        stem_channels: channels of the stem at multiplier 1.
        stage_channels: channels of each stage at multiplier 1.
        strides: stride of each stage's first block.
    """

    multipliers: tuple[float, ...]
    stem_channels: int
    stage_channels: tuple[int, ...]
    strides: tuple[int, ...]

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of ``arch``, from the image to the logits."""
        self.check(arch)
        placer = Placer(self, arch)
        channels = _place_stem(placer, self, arch)
        for s, (base, stride, genes) in enumerate(zip(self.stage_channels, self.strides, arch.stages, strict=True)):
            width = make_divisible(base * arch.network[f"stage_{s + 1}_width"])
            for b, gene in enumerate(genes):
                placer.place(f"stages.{s}.{b}", _block(channels, width, gene["expand"], stride if b == 0 else 1, downsample=b == 0))
                channels = width
        placer.place("classifier", Classifier(in_channels=channels, out_channels=self.num_classes, pool=True))
        return placer.placed


# Cached: a training step lowers several new archs, which share nearly all of their blocks.
@lru_cache(maxsize=4096)
def _block(channels: int, width: int, expand: float, stride: int, *, downsample: bool) -> Bottleneck:
    inner = make_divisible(round(width * expand))
    return Bottleneck(in_channels=channels, mid_channels=inner, out_channels=width, stride=stride, downsample=downsample)


def _place_stem(placer: Placer, space: ResNetSpace, arch: Arch) -> int:
    """Place two convolutions, a residual one between them if the stem is deep, and max pooling; returns the output channels."""
    inner = _inner_channels(space.stem_channels * arch.network["stem_inner_width"])
    width = make_divisible(space.stem_channels * arch.network["stem_width"])
    placer.place("stem.first", ConvBlock(in_channels=space.in_channels, out_channels=inner, kernel=3, stride=2))
    if arch.network["stem_depth"] == 3:
        placer.place("stem.middle", ResidualConv(in_channels=inner, out_channels=inner))
    placer.place("stem.last", ConvBlock(in_channels=inner, out_channels=width, kernel=3))
    placer.place("stem.pool", MaxPool(in_channels=width, out_channels=width))
    return width


def _inner_channels(stem_channels: float) -> int:
    return make_divisible(make_divisible(stem_channels) // 2)


def _width_gene(name: str, channels: dict[float, int]) -> Gene:
    """The gene of the multipliers that lead to different channels."""
    first = {count: multiplier for multiplier, count in reversed(channels.items())}
    return Gene(name, tuple(sorted(first.values())))


def make_space(
    name: str,
    resolutions: tuple[int, ...],
    *,
    stem_channels: int = 64,
    stage_channels: tuple[int, ...] = (256, 512, 1024, 2048),
    depths: tuple[tuple[int, ...], ...] = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4)),
    expands: tuple[float, ...] = (0.2, 0.25, 0.35),
    multipliers: tuple[float, ...] = (0.65, 0.8, 1.0),
    strides: tuple[int, ...] = (1, 2, 2, 2),
    num_classes: int = 1000,
    in_channels: int = 3,
) -> ResNetSpace:
    """Create a ResNet-D space; the defaults are those of MIT's supernet.

    Args:
        name: by which archs, tables and weights refer to the space.
        resolutions: sides of the square input in pixels.
        stem_channels: channels of the stem at multiplier 1.
        stage_channels: channels of each stage at multiplier 1.
        depths: numbers of blocks to choose from, by stage.
        expands: ratios of inner to output channels to choose from.
        multipliers: width multipliers of the stem and of each stage, to choose from.
        strides: stride of each stage's first block.
        num_classes: number of logits.
        in_channels: channels of the images.
    """
    widths = [
        _width_gene("stem_inner_width", {m: _inner_channels(stem_channels * m) for m in multipliers}),
        _width_gene("stem_width", {m: make_divisible(stem_channels * m) for m in multipliers}),
        *(
            _width_gene(f"stage_{s + 1}_width", {m: make_divisible(channels * m) for m in multipliers})
            for s, channels in enumerate(stage_channels)
        ),
    ]
    return ResNetSpace(
        name=name,
        resolutions=resolutions,
        stages=tuple(Stage(depth, (Gene("expand", expands),)) for depth in depths),
        network=(Gene("stem_depth", (2, 3)), *widths),
        num_classes=num_classes,
        in_channels=in_channels,
        multipliers=multipliers,
        stem_channels=stem_channels,
        stage_channels=stage_channels,
        strides=strides,
    )


SPACES = (
    make_space("ofa-resnet50", tuple(range(128, 225, 4))),
    make_space(
        "ofa-resnet50-tiny",
        (24, 32),
        stem_channels=48,
        stage_channels=(32, 64),
        depths=((1, 2), (1, 2)),
        expands=(0.25, 0.5),
        strides=(1, 2),
        num_classes=10,
    ),
)
