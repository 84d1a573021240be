"""ProxylessNAS (Cai et al., ICLR 2019): MobileNetV2 blocks with the stage widths of ProxylessNAS, elastic as in Once-for-All."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.arch import Arch
from ofa.blocks import Classifier, ConvBlock, InvertedResidual, PlacedBlock, make_divisible
from ofa.families.inverted_residuals import StagePlan, place_inverted_residuals
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage

__all__ = ["SPACES", "ProxylessSpace", "make_space"]

_EPS = 1e-3


@dataclass(frozen=True, kw_only=True)
class ProxylessSpace(Space):
    """The networks of one ProxylessNAS supernet.

    Attributes:
        stem_widths: channels of the first convolution and of the first, fixed block.
        plans: common properties of the blocks, for each elastic stage.
        head_width: channels of the last convolution, before pooling.
    """

    stem_widths: tuple[int, int]
    plans: tuple[StagePlan, ...]
    head_width: int

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of ``arch``, from the image to the logits."""
        self.check(arch)
        placer = Placer(self, arch)
        stem, first = self.stem_widths
        placer.place(
            "stem.conv", ConvBlock(in_channels=self.in_channels, out_channels=stem, kernel=3, stride=2, activation="relu6", norm_eps=_EPS)
        )
        block = InvertedResidual(
            in_channels=stem, mid_channels=stem, out_channels=first, kernel=3, activation="relu6", expand=False, norm_eps=_EPS
        )
        placer.place("stem.block", block)
        channels = place_inverted_residuals(placer, first, self.plans, arch, norm_eps=_EPS)
        placer.place("head.mix", ConvBlock(in_channels=channels, out_channels=self.head_width, activation="relu6", norm_eps=_EPS))
        placer.place("classifier", Classifier(in_channels=self.head_width, out_channels=self.num_classes, pool=True))
        return placer.placed


def make_space(
    name: str,
    width: float,
    resolutions: tuple[int, ...],
    *,
    stem: tuple[int, int] = (32, 16),
    widths: tuple[int, ...] = (24, 40, 80, 96, 192, 320),
    strides: tuple[int, ...] = (2, 2, 2, 1, 2, 1),
    head: int = 1280,
    kernels: tuple[int, ...] = (3, 5, 7),
    depths: tuple[int, ...] = (2, 3, 4),
    num_classes: int = 1000,
    in_channels: int = 3,
) -> ProxylessSpace:
    """Create a ProxylessNAS space; the defaults are those of MIT's supernet with width multiplier 1.

    Args:
        name: by which archs, tables and weights refer to the space.
        width: multiplier of all channels.
        resolutions: sides of the square input in pixels.
        stem: channels of the first convolution and of the first block.
        widths: channels of each stage at multiplier 1; the last stage is always one block deep.
        strides: stride of each stage's first block.
        head: channels of the last convolution.
        kernels: sides of depthwise kernels to choose from, in pixels.
        depths: numbers of blocks per stage to choose from.
        num_classes: number of logits.
        in_channels: channels of the images.
    """
    genes = (Gene("kernel", kernels), Gene("expand", (3, 4, 6)))
    # The last stage is always one block deep.
    stages = (*(Stage(depths, genes) for _ in widths[:-1]), Stage((1,), genes))
    return ProxylessSpace(
        name=name,
        resolutions=resolutions,
        stages=stages,
        num_classes=num_classes,
        in_channels=in_channels,
        stem_widths=(make_divisible(stem[0] * width), make_divisible(stem[1] * width)),
        plans=tuple(StagePlan(make_divisible(w * width), s, "relu6") for w, s in zip(widths, strides, strict=True)),
        head_width=make_divisible(head * width),
    )


SPACES = (
    make_space("ofa-proxyless-w1.3", 1.3, tuple(range(128, 225, 4))),
    make_space(
        "ofa-proxyless-tiny",
        1.0,
        (16, 24, 32),
        stem=(16, 8),
        widths=(16, 24, 40),
        strides=(1, 2, 2),
        head=96,
        kernels=(3, 5),
        depths=(1, 2),
        num_classes=10,
    ),
)
