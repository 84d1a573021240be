"""MobileNetV3 (Howard et al., ICCV 2019) as an elastic family, with the choices of Once-for-All (Cai et al., ICLR 2020).

Stage widths, strides, activations and the stages with squeeze-excite are the same as in MIT's once-for-all package, so that its
trained supernets can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ofa.arch import Arch
from ofa.blocks import Activation, Classifier, ConvBlock, FeatureMix, InvertedResidual, PlacedBlock, make_divisible
from ofa.errors import SpaceError
from ofa.families.inverted_residuals import StagePlan, place_inverted_residuals
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage

__all__ = ["SPACES", "MobileNetV3Space", "make_space"]

T = TypeVar("T")

_MIT_ACTIVATIONS: tuple[Activation, ...] = ("relu", "relu", "h_swish", "h_swish", "h_swish")
_MIT_GATES = (False, True, False, True, True)


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Space(Space):
    """The networks of one MobileNetV3 supernet.

    Attributes:
        stem_width: channels of the first convolution and of the first, fixed block.
        stem_stride: stride of the first convolution: 2, or 1 for images of few pixels.
        plans: common properties of the blocks, for each elastic stage.
        head_widths: channels of the last convolution and of the feature mix after pooling.
        activation: of the first and the last convolution and of the feature mix.
    """

    stem_width: int
    stem_stride: int = 2
    plans: tuple[StagePlan, ...]
    head_widths: tuple[int, int]
    activation: Activation = "h_swish"

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of ``arch``, from the image to the logits."""
        self.check(arch)
        placer = Placer(self, arch)
        stem = self.stem_width
        placer.place(
            "stem.conv",
            ConvBlock(in_channels=self.in_channels, out_channels=stem, kernel=3, stride=self.stem_stride, activation=self.activation),
        )
        first = InvertedResidual(in_channels=stem, mid_channels=stem, out_channels=stem, kernel=3, expand=False, residual=True)
        placer.place("stem.block", first)
        channels = place_inverted_residuals(placer, stem, self.plans, arch)
        expanded, mixed = self.head_widths
        placer.place("head.expand", ConvBlock(in_channels=channels, out_channels=expanded, activation=self.activation))
        placer.place("head.mix", FeatureMix(in_channels=expanded, out_channels=mixed, activation=self.activation))
        placer.place("classifier", Classifier(in_channels=mixed, out_channels=self.num_classes))
        return placer.placed


def make_space(
    name: str,
    width: float,
    resolutions: tuple[int, ...],
    *,
    widths: tuple[int, ...] = (24, 40, 80, 112, 160),
    strides: tuple[int, ...] = (2, 2, 2, 1, 2),
    stem: tuple[int, int] = (16, 2),
    head: tuple[int, int] = (960, 1280),
    kernels: tuple[int, ...] = (3, 5, 7),
    expands: tuple[int, ...] = (3, 4, 6),
    depths: tuple[int, ...] = (2, 3, 4),
    squeeze_excite: bool | tuple[bool, ...] | None = None,
    activation: Activation | tuple[Activation, ...] | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> MobileNetV3Space:
    """Create a MobileNetV3 space; the defaults are those of MIT's supernet with width multiplier 1.

    Args:
        name: by which archs, tables and weights refer to the space.
        width: multiplier of all channels.
        resolutions: sides of the square input in pixels.
        widths: channels of each elastic stage at multiplier 1.
        strides: stride of each stage's first block.
        stem: channels and stride of the first convolution.
        head: channels of the last convolution and of the feature mix.
        kernels: sides of depthwise kernels to choose from, in pixels.
        expands: ratios of depthwise to input channels to choose from.
        depths: numbers of blocks per stage to choose from.
        squeeze_excite: whether blocks have squeeze-excite gates, for all stages or by stage; False for devices on which gates are slow.
            None for the stages of MIT's supernet.
        activation: one activation for all blocks, stem and head, such as ``relu``; or one per stage, with h-swish in stem and head. None
            for the activations of MIT's supernet.
        num_classes: number of logits.
        in_channels: channels of the images.

    Raises:
        SpaceError: an argument given by stage does not have one value per stage.
    """
    gates: tuple[bool, ...] = _by_stage("squeeze_excite", squeeze_excite, _MIT_GATES, len(widths))
    activations: tuple[Activation, ...] = _by_stage("activation", activation, _MIT_ACTIVATIONS, len(widths))
    plans = tuple(
        StagePlan(make_divisible(out * width), stride, each, gate)
        for out, stride, each, gate in zip(widths, strides, activations, gates, strict=False)
    )
    genes = (Gene("kernel", kernels), Gene("expand", expands))
    return MobileNetV3Space(
        name=name,
        resolutions=resolutions,
        stages=(Stage(depths, genes),) * len(plans),
        num_classes=num_classes,
        in_channels=in_channels,
        stem_width=make_divisible(stem[0] * width),
        stem_stride=stem[1],
        plans=plans,
        head_widths=(make_divisible(head[0] * width), make_divisible(head[1] * width)),
        activation=activation if isinstance(activation, str) else "h_swish",
    )


def _by_stage(what: str, value: T | tuple[T, ...] | None, usual: tuple[T, ...], stages: int) -> tuple[T, ...]:
    """One value per stage, from a common value, one value per stage, or None for the usual values."""
    if value is None:
        return usual[:stages]
    values = value if isinstance(value, tuple) else (value,) * stages
    if len(values) != stages:
        raise SpaceError(f"{what} must have a value for each of {stages} stages, but has {len(values)}; give as many as there are widths")
    return values


SPACES = (
    make_space("ofa-mbv3-w1.0", 1.0, tuple(range(128, 225, 4))),
    make_space("ofa-mbv3-w1.2", 1.2, tuple(range(128, 225, 4))),
    # For tests and the demo: three stages of at most two blocks, small enough to train in a minute on a laptop.
    make_space(
        "ofa-mbv3-tiny",
        1.0,
        (16, 24, 32),
        widths=(16, 24, 40),
        strides=(1, 2, 2),
        stem=(8, 2),
        head=(96, 128),
        kernels=(3, 5),
        depths=(1, 2),
        num_classes=10,
    ),
    # For CIFAR-sized images. The first convolution has stride 1, and three strides of 2 follow, because the five strides for ImageNet
    # would leave a single pixel. Widths and head were then chosen so that the space spans 5 to 30 MMACs.
    make_space(
        "ofa-mbv3-32px",
        1.0,
        (28, 32),
        widths=(16, 24, 40, 48, 80),
        strides=(2, 2, 1, 2, 1),
        stem=(16, 1),
        head=(320, 512),
        num_classes=10,
    ),
)
