"""Blocks of the head: they pool the last feature map and compute a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ofa.blocks.block import Block
from ofa.blocks.parts import Activation, Chain, Conv, Linear, Part, Plain, activation, conv_norm_act, flatten, global_pool

__all__ = ["Classifier", "FeatureMix", "PooledConv"]


@dataclass(frozen=True, kw_only=True)
class FeatureMix(Block):
    """Global average pooling, a linear layer without bias, and an activation (the head of MobileNetV3); the output is [B, C].

    Other implementations use a 1x1 convolution of one pixel, which is equivalent but several times slower to train.
    """

    kind: ClassVar[str] = "feature_mix"
    activation: Activation = "h_swish"

    @property
    def body(self) -> Part:
        return Chain(
            {"pool": global_pool(), "flatten": flatten(), "linear": Linear("in", "out"), "activation": activation(self.activation)}
        )


@dataclass(frozen=True, kw_only=True)
class PooledConv(Block):
    """Global average pooling and a 1x1 convolution with batch norm and activation (the head of MobileNetV4); output [B, C, 1, 1]."""

    kind: ClassVar[str] = "pooled_conv"
    activation: Activation = "relu"

    @property
    def body(self) -> Part:
        return Chain({"pool": global_pool(), "conv": conv_norm_act(Conv("in", "out"), self.norm_eps, self.activation)})


@dataclass(frozen=True, kw_only=True)
class Classifier(Block):
    """Optional global average pooling, dropout, and the linear layer of the logits [B, classes].

    Attributes:
        pool: whether the input is an image [B, C, H, W], which is pooled first.
    """

    kind: ClassVar[str] = "classifier"
    pool: bool = False

    @property
    def body(self) -> Part:
        pool = {"pool": global_pool()} if self.pool else {}
        dropout = Plain(lambda: nn.Dropout(0.0))
        return Chain({**pool, "flatten": flatten(), "dropout": dropout, "linear": Linear("in", "out", bias=True)})
