"""A family: convolutions one after the other, whose number, kernels and widths are elastic."""

from dataclasses import dataclass

from ofa.arch import Arch
from ofa.blocks import Classifier, ConvBlock, PlacedBlock
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage


@dataclass(frozen=True, kw_only=True)
class PlainNets(Space):
    """Stages of convolutions with batch norm and ReLU; the first of each stage halves the image.

    Attributes:
        widths: channels of each stage where the gene ``width`` is 1.
    """

    widths: tuple[int, ...]

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of an arch, from the image to the logits."""
        placer, channels = Placer(self, arch), self.in_channels
        for s, (width, blocks) in enumerate(zip(self.widths, arch.stages, strict=True)):
            out = round(width * float(arch.network["width"]))
            for b, genes in enumerate(blocks):
                block = ConvBlock(in_channels=channels, out_channels=out, kernel=int(genes["kernel"]), stride=2 if b == 0 else 1)
                placer.place(f"stages.{s}.{b}", block)
                channels = out
        placer.place("classifier", Classifier(in_channels=channels, out_channels=self.num_classes, pool=True))
        return placer.placed


def plain() -> PlainNets:
    """Two stages of one or two convolutions."""
    stage = Stage((1, 2), (Gene("kernel", (1, 3)),))
    return PlainNets(
        name="plain", resolutions=(12, 16), stages=(stage, stage), network=(Gene("width", (0.5, 1.0)),), widths=(8, 16), num_classes=10
    )
