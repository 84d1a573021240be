"""Blocks: the building blocks of networks. Each kind is a small frozen dataclass; module, tensors, shapes and MACs are derived from it.

Shapes: B batch, C channels, H W pixels, T tokens of D channels. Blocks map x_BCHW to y_BCHW, or x_BTD to y_BTD; blocks of the head
return [B, C].
"""

from ofa.blocks.assembling import assemble, build_empty, build_network, empty_network, initialize
from ofa.blocks.block import Axis, Block, PlacedBlock
from ofa.blocks.convolutions import ConvBlock, MaxPool, ResidualConv
from ofa.blocks.heads import Classifier, FeatureMix, PooledConv
from ofa.blocks.parts import Activation, Role
from ofa.blocks.residuals import Bottleneck, InvertedResidual, make_divisible
from ofa.blocks.shape import Shape
from ofa.blocks.token_modules import resampled
from ofa.blocks.traced import TracedBlock
from ofa.blocks.transformer import PatchEmbedding, TokenClassifier, TransformerLayer
from ofa.blocks.universal import FusedInvertedBottleneck, UniversalInvertedBottleneck
from ofa.blocks.wiring import last_readers, segments, sources, with_liveness

__all__ = [
    "Activation",
    "Axis",
    "Block",
    "Bottleneck",
    "Classifier",
    "ConvBlock",
    "FeatureMix",
    "FusedInvertedBottleneck",
    "InvertedResidual",
    "MaxPool",
    "PatchEmbedding",
    "PlacedBlock",
    "PooledConv",
    "ResidualConv",
    "Role",
    "Shape",
    "TokenClassifier",
    "TracedBlock",
    "TransformerLayer",
    "UniversalInvertedBottleneck",
    "assemble",
    "build_empty",
    "build_network",
    "empty_network",
    "initialize",
    "last_readers",
    "make_divisible",
    "resampled",
    "segments",
    "sources",
    "with_liveness",
]
