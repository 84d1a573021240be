"""Vision transformers (Dosovitskiy et al., ICLR 2021) as an elastic family, with the choices of AutoFormer (Chen et al., ICCV 2021).

Elastic are the channels of all tokens (the embedding), the number of layers and, in each layer, the number of heads and the ratio of the
feed-forward network. All heads have the same number of channels, so that fewer heads are leading slices of queries, keys and values.

The classifier reads the mean over all tokens instead of a class token: plain transformers learn ImageNet at least as well that way (Beyer
et al., "Better plain ViT baselines for ImageNet-1k", 2022), and every token is a patch. Position embeddings are learned at the largest
resolution and interpolated for others, so that a place in the image keeps its embedding; a crop of the grid would shift it. An exported
network has the embeddings of its own resolution as a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ofa.arch import Arch, Genes
from ofa.blocks import PatchEmbedding, PlacedBlock, TokenClassifier, TransformerLayer
from ofa.families.placing import Placer
from ofa.resolution import sides
from ofa.space import Gene, Space, Stage

__all__ = ["SPACES", "VisionTransformerSpace", "make_space"]

_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class VisionTransformerSpace(Space):
    """The networks of one supernet of vision transformers.

    The gene of the network is ``embedding``, the channels of a token. Genes of a layer are ``heads`` and ``mlp_ratio``, the ratio of the
    feed-forward network's hidden channels to the channels of a token.

    Attributes:
        patch: side of a patch in pixels. Pixels beyond the last whole patch of an image are ignored.
        head_channels: channels per head.
    """

    patch: int
    head_channels: int

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        """The blocks of ``arch``, from the image to the logits."""
        self.check(arch)
        placer, width = Placer(self, arch), int(arch.network["embedding"])
        rows, columns = (side // self.patch for side in sides(arch.resolution))
        patches = PatchEmbedding(in_channels=self.in_channels, out_channels=width, patch=self.patch, rows=rows, columns=columns)
        placer.place("patches", patches)
        for s, layers in enumerate(arch.stages):
            for b, genes in enumerate(layers):
                placer.place(f"stages.{s}.{b}", _layer(width, self.head_channels, genes))
        placer.place("classifier", TokenClassifier(in_channels=width, out_channels=self.num_classes, norm_eps=_EPS))
        return placer.placed


# Cached: a training step lowers several new archs, which share nearly all of their blocks.
@lru_cache(maxsize=4096)
def _layer(width: int, head_channels: int, genes: Genes) -> TransformerLayer:
    return TransformerLayer(
        in_channels=width,
        out_channels=width,
        heads=int(genes["heads"]),
        head_channels=head_channels,
        mid_channels=round(width * genes["mlp_ratio"]),
        norm_eps=_EPS,
    )


def make_space(
    name: str,
    resolutions: tuple[int, ...],
    *,
    embeddings: tuple[int, ...],
    depths: tuple[int, ...],
    heads: tuple[int, ...],
    mlp_ratios: tuple[float, ...] = (2, 3, 4),
    patch: int = 16,
    head_channels: int = 64,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> VisionTransformerSpace:
    """Create a space of vision transformers.

    Args:
        name: by which archs, tables and weights refer to the space.
        resolutions: sides of the square input in pixels.
        embeddings: channels of a token to choose from.
        depths: numbers of layers to choose from.
        heads: numbers of heads per layer to choose from.
        mlp_ratios: ratios to choose from, of the feed-forward network's hidden channels to the channels of a token.
        patch: side of a patch in pixels.
        head_channels: channels per head.
        num_classes: number of logits.
        in_channels: channels of the images.
    """
    return VisionTransformerSpace(
        name=name,
        resolutions=resolutions,
        stages=(Stage(depths, (Gene("heads", heads), Gene("mlp_ratio", mlp_ratios))),),
        network=(Gene("embedding", embeddings),),
        num_classes=num_classes,
        in_channels=in_channels,
        patch=patch,
        head_channels=head_channels,
    )


SPACES = (
    make_space("ofa-vit", (128, 160, 192, 224, 256), embeddings=(192, 256, 320, 384), depths=(8, 10, 12), heads=(3, 4, 5, 6)),
    make_space(
        "ofa-vit-tiny",
        (16, 24, 32),
        embeddings=(24, 32),
        depths=(1, 2, 3),
        heads=(1, 2, 3),
        mlp_ratios=(1, 2),
        patch=4,
        head_channels=8,
        num_classes=10,
    ),
)
