"""Blocks of one's own parts: a transformer, whose blocks take tokens and whose heads are elastic, needs no change to the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ofa.arch import Arch
from ofa.blocks import Axis, Block, PlacedBlock, Shape, build_network
from ofa.blocks.parts import Chain, Conv, Layer, Lengths, Linear, Part, Plain, ResidualChain, TensorSpec
from ofa.cost import macs, params
from ofa.families import lower
from ofa.families.placing import Placer
from ofa.space import Gene, Space, Stage
from ofa.supernet import Supernet
from tests.ofa.strategies import archs, randomized
from tests.ofa.test_cost import counted_macs

HEAD = 4


class Attend(nn.Module):
    """Attention of heads of ``HEAD`` channels each over tokens [B, T, D]."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        q, k, v = (getattr(self, name)(x_BTD).unflatten(2, (-1, HEAD)).transpose(1, 2) for name in ("q", "k", "v"))
        result: torch.Tensor = self.out((torch.softmax(q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).flatten(2))
        return result


@dataclass(frozen=True)
class Attention(Part):
    layers = Chain({name: Linear("in", "heads") for name in ("q", "k", "v")} | {"out": Linear("heads", "out")})

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self.layers.tensors

    def module(self, lengths: Lengths) -> nn.Module:
        return Attend({name: part.module(lengths) for name, part in self.layers.parts.items()})

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        for name in ("q", "k", "v"):
            reached = self.layers.parts[name].compute(shape, lengths, layers)
        layers += [Layer(0, reached, products=reached.positions * reached.values)] * 2
        return self.layers.parts["out"].compute(reached, lengths, layers)

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        return "out"


@dataclass(frozen=True)
class LayerNorm(Part):
    axis: str

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {name: TensorSpec("undecayed", (self.axis,)) for name in ("weight", "bias")}

    def module(self, lengths: Lengths) -> nn.Module:
        return nn.LayerNorm(lengths[self.axis])


@dataclass(frozen=True, kw_only=True)
class AttentionBlock(Block):
    kind: ClassVar[str] = "attention"
    heads: int

    @property
    def axes(self) -> Mapping[str, Axis]:
        return {**super().axes, "heads": Axis(self.heads * HEAD, unit=HEAD)}

    @property
    def body(self) -> Part:
        return ResidualChain({"norm": LayerNorm("in"), "attention": Attention()})


class Tokens(nn.Flatten):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class Patches(Block):
    kind: ClassVar[str] = "patches"

    @property
    def body(self) -> Part:
        tokens = Plain(lambda: Tokens(2), lambda shape: Shape(shape.positions, shape.channels))
        return Chain({"conv": Conv("in", "out", kernel=3, stride=4, bias=True), "tokens": tokens})


class Mean(nn.Module):
    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD.mean(1)


@dataclass(frozen=True, kw_only=True)
class TokenClassifier(Block):
    kind: ClassVar[str] = "token_classifier"

    @property
    def body(self) -> Part:
        return Chain({"mean": Plain(Mean, lambda shape: Shape(shape.channels)), "linear": Linear("in", "out", bias=True)})


@dataclass(frozen=True, kw_only=True)
class Transformer(Space):
    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        placer, width = Placer(self, arch), int(arch.network["width"])
        placer.place("patches", Patches(in_channels=self.in_channels, out_channels=width))
        for b, genes in enumerate(arch.stages[0]):
            placer.place(f"stages.0.{b}", AttentionBlock(in_channels=width, out_channels=width, heads=int(genes["heads"])))
        placer.place("classifier", TokenClassifier(in_channels=width, out_channels=self.num_classes))
        return placer.placed


STAGE = Stage((1, 2), (Gene("heads", (1, 2, 3)),))
SPACE = Transformer(name="transformer", resolutions=((8, 20), 16), stages=(STAGE,), network=(Gene("width", (8, 12)),), num_classes=5)


def images(arch: Arch) -> torch.Tensor:
    return torch.randn(2, *lower(SPACE, arch)[0].input, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def supernet() -> Supernet:
    return randomized(Supernet(SPACE, generator=torch.Generator().manual_seed(0))).double().eval()


@settings(max_examples=10)
@given(archs(SPACE))
def test_subnets_are_their_extracts_and_counts_are_those_of_the_modules(arch: Arch) -> None:
    store, lowered = supernet(), lower(SPACE, arch)
    with torch.no_grad():
        assert torch.equal(store.subnet(arch)(images(arch)), store.extract(arch)(images(arch)))
        assert macs(lowered) == counted_macs(store.extract(arch), images(arch)[:1])
    assert params(lowered) == sum(parameter.numel() for parameter in store.extract(arch).parameters())


def test_heads_move_as_a_whole() -> None:
    store, arch = supernet(), SPACE.largest()
    before = store.named_tensors()["stages.0.0.attention.q.weight"].clone()
    with torch.no_grad():
        logits = store.subnet(arch)(images(arch))
        store.reorder_channels(SPACE.restrict(heads=[3], width=[12]))
        torch.testing.assert_close(store.subnet(arch)(images(arch)), logits)
    after = store.named_tensors()["stages.0.0.attention.q.weight"]
    # The columns move too, so heads are told apart by the values of their rows.
    heads = [{tuple(sorted(row.tolist())) for row in part} for part in (before, after) for part in part.split(HEAD)]
    assert sorted(map(sorted, heads[:3])) == sorted(map(sorted, heads[3:]))


@dataclass(frozen=True, kw_only=True)
class Learned(Block):
    kind: ClassVar[str] = "learned"

    @property
    def body(self) -> Part:
        return Plain(nn.PReLU)


def test_weights_that_nothing_draws_are_refused() -> None:
    block = Learned(in_channels=3, out_channels=3)
    with pytest.raises(TypeError, match="but PReLU has parameters"):
        build_network([PlacedBlock("only", block, Shape(3, 4, 4))])
