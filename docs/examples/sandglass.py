"""A kind of block: the sandglass of MobileNeXt (Zhou et al., ECCV 2020), and a family of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ofa.arch import Arch
from ofa.blocks import Axis, Block, Classifier, ConvBlock, PlacedBlock
from ofa.blocks.parts import Conv, Depthwise, Part, ResidualChain, conv_norm_act
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage


@dataclass(frozen=True, kw_only=True)
class Sandglass(Block):
    """A depthwise convolution, a bottleneck and a depthwise convolution, added to their input: the shortcut joins the wide ends.

    Attributes:
        mid_channels: of the bottleneck.
        kernel: pixels of a side of the depthwise kernels.
    """

    kind: ClassVar[str] = "sandglass"
    mid_channels: int
    kernel: int = 3

    @property
    def axes(self) -> Mapping[str, Axis]:
        """The sizes that may shrink: channels by their leading ones, kernels by their centre."""
        return {**super().axes, "mid": Axis(self.mid_channels), "kernel": Axis(self.kernel, "centre")}

    @property
    def body(self) -> Part:
        """Parts by their names; each names the axes that it maps from and to."""
        return ResidualChain(
            {
                "first": conv_norm_act(Depthwise("in", "in", kernel="kernel"), self.norm_eps, "relu6"),
                "reduce": conv_norm_act(Conv("in", "mid"), self.norm_eps),
                "expand": conv_norm_act(Conv("mid", "out"), self.norm_eps, "relu6"),
                "last": conv_norm_act(Depthwise("out", "out", kernel="kernel"), self.norm_eps),
            }
        )


@dataclass(frozen=True, kw_only=True)
class SandglassNets(Space):
    """A convolution with stride, then sandglasses of one width."""

    width: int

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of an arch, from the image to the logits."""
        placer, width = Placer(self, arch), self.width
        placer.place("stem", ConvBlock(in_channels=self.in_channels, out_channels=width, kernel=3, stride=2))
        for b, genes in enumerate(arch.stages[0]):
            mid, kernel = int(width * float(genes["bottleneck"])), int(genes["kernel"])
            placer.place(f"stages.0.{b}", Sandglass(in_channels=width, out_channels=width, mid_channels=mid, kernel=kernel))
        placer.place("classifier", Classifier(in_channels=width, out_channels=self.num_classes, pool=True))
        return placer.placed


def sandglasses() -> SandglassNets:
    """One or two blocks, whose bottlenecks have a quarter or half of their channels."""
    stage = Stage((1, 2), (Gene("kernel", (3, 5)), Gene("bottleneck", (0.25, 0.5))))
    return SandglassNets(name="sandglass", resolutions=(12, 16), stages=(stage,), width=16, num_classes=10)
