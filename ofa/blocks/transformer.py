"""Blocks of vision transformers (Dosovitskiy et al., ICLR 2021), on tokens (T, D), and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ofa.blocks.block import Axis, Block
from ofa.blocks.parts import Chain, Conv, Layer, Lengths, Linear, Part, Plain, ResidualChain, TensorSpec, activation
from ofa.blocks.shape import Shape
from ofa.blocks.token_modules import AddPositions, Attention, TokenLinear, TokenMean, Tokens

__all__ = ["PatchEmbedding", "TokenClassifier", "TransformerLayer"]


# -- parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patches(Conv):
    """A convolution of non-overlapping patches; pixels beyond the last whole patch are ignored."""

    def module(self, lengths: Lengths) -> nn.Module:
        return nn.Conv2d(lengths[self.inputs], lengths[self.outputs], self.side(lengths), self.stride, bias=self.bias)

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        patches = Shape(shape.channels, shape.height // self.stride, shape.width // self.stride)
        return super(Conv, self).compute(patches, lengths, layers)


@dataclass(frozen=True)
class _Positions(Part):
    """A learned embedding, with the channels of ``axis``, for each of ``rows`` x ``columns`` patches."""

    axis: str

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {"weight": TensorSpec("undecayed", (self.axis, "rows", "columns"))}

    def module(self, lengths: Lengths) -> nn.Module:
        return AddPositions(lengths[self.axis], lengths["rows"], lengths["columns"])


@dataclass(frozen=True)
class _LayerNorm(Part):
    """Layer norm over the channels of an axis; in a smaller network over its remaining channels only."""

    axis: str
    eps: float

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {name: TensorSpec("undecayed", (self.axis,)) for name in ("weight", "bias")}

    def module(self, lengths: Lengths) -> nn.Module:
        return nn.LayerNorm(lengths[self.axis], eps=self.eps)


@dataclass(frozen=True)
class _TokenLinear(Linear):
    """A linear layer on every token, with bias."""

    bias: bool = True

    def module(self, lengths: Lengths) -> nn.Module:
        return TokenLinear(lengths[self.inputs], lengths[self.outputs], bias=self.bias)


@dataclass(frozen=True)
class _Attention(Part):
    """Self-attention with the axis ``heads``, from the axis ``inputs`` to the axis ``outputs``."""

    inputs: str
    outputs: str
    head_channels: int

    @property
    def _layers(self) -> Mapping[str, Part]:
        inner = {name: _TokenLinear(self.inputs, "heads") for name in ("query", "key", "value")}
        return {**inner, "out": _TokenLinear("heads", self.outputs)}

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return Chain(self._layers).tensors

    def module(self, lengths: Lengths) -> nn.Module:
        return Attention(**{name: part.module(lengths) for name, part in self._layers.items()}, head_channels=self.head_channels)

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        *inner, out = self._layers.values()
        mixed, *_ = [part.compute(shape, lengths, layers) for part in inner]
        scores = mixed.of_channels(mixed.channels // self.head_channels * mixed.positions)
        layers += [Layer(0, output, products=mixed.positions * mixed.values) for output in (scores, mixed)]
        return out.compute(mixed, lengths, layers)

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        return self.outputs


# -- blocks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PatchEmbedding(Block):
    """Patches of an image as tokens, plus learned position embeddings; maps [B, C, H, W] to [B, T, D].

    Attributes:
        patch: side of a patch in pixels.
        rows, columns: number of whole patches of an image. A supernet stores the position embeddings of its largest images and
            interpolates them for other sizes (``ofa.sharing``).
    """

    kind: ClassVar[str] = "patch_embedding"
    patch: int
    rows: int
    columns: int

    @property
    def axes(self) -> Mapping[str, Axis]:
        return {**super().axes, "rows": Axis(self.rows, "resampled"), "columns": Axis(self.columns, "resampled")}

    @property
    def body(self) -> Part:
        conv = _Patches("in", "out", bias=True, kernel=self.patch, stride=self.patch)
        tokens = Plain(Tokens, lambda shape: Shape(shape.positions, shape.channels))
        return Chain({"conv": conv, "position": _Positions("out"), "tokens": tokens})


@dataclass(frozen=True, kw_only=True)
class TransformerLayer(Block):
    """A pre-norm transformer layer: attention and a feed-forward network, each with a residual connection; keeps [B, T, D].

    Attributes:
        heads: number of attention heads.
        head_channels: channels of each head, independent of the channels of a token.
        mid_channels: hidden channels of the feed-forward network.
    """

    kind: ClassVar[str] = "transformer_layer"
    heads: int
    head_channels: int
    mid_channels: int

    @property
    def axes(self) -> Mapping[str, Axis]:
        heads = Axis(self.heads * self.head_channels, unit=self.head_channels)
        return {**super().axes, "heads": heads, "mid": Axis(self.mid_channels)}

    @property
    def body(self) -> Part:
        attention = {"norm": _LayerNorm("in", self.norm_eps), "attention": _Attention("in", "out", self.head_channels)}
        feed_forward = {
            "norm": _LayerNorm("out", self.norm_eps),
            "expand": _TokenLinear("out", "mid"),
            "activation": activation("gelu"),
            "project": _TokenLinear("mid", "out"),
        }
        return Chain({"attention": ResidualChain(attention), "feed_forward": ResidualChain(feed_forward)})


@dataclass(frozen=True, kw_only=True)
class TokenClassifier(Block):
    """Layer norm, the mean over all tokens, dropout, and the linear layer of the logits [B, classes]."""

    kind: ClassVar[str] = "token_classifier"

    @property
    def body(self) -> Part:
        mean = Plain(TokenMean, lambda shape: Shape(shape.channels))
        dropout = Plain(lambda: nn.Dropout(0.0))
        norm, linear = _LayerNorm("in", self.norm_eps), Linear("in", "out", bias=True)
        return Chain({"norm": norm, "mean": mean, "dropout": dropout, "linear": linear})
