"""What every block says of itself: its axes, its tensors, its module, and what it computes of an input of some shape.

A kind of block is a small frozen value with one ``body``, a tree of parts (ofa.blocks.parts). Module, tensors, shapes, MACs, and which
axes keep a common order of channels all follow from that one description.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Literal, NamedTuple

from torch import nn

from ofa.blocks.parts import Layer, Part, TensorSpec
from ofa.blocks.shape import Shape

__all__ = ["Axis", "Block", "PlacedBlock"]


@dataclass(frozen=True)
class Axis:
    """A size of a block that may shrink.

    Attributes:
        length: its number of values.
        rule: which values a smaller block keeps: the leading ones, such as channels, or those in the centre, such as a kernel's taps; or
            ``resampled``, where it has values between those of the larger one, such as positions in an image.
        unit: values that belong together and keep their order among themselves, such as those of an attention head.
    """

    length: int
    rule: Literal["leading", "centre", "resampled"] = "leading"
    unit: int = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """What every kind of block offers.

    Attributes:
        in_channels, out_channels: channels of the block's input and output.
        norm_eps: epsilon of its norms.
        any_size: whether it computes by the same operations for inputs of every size, so that one exported file serves them all.
    """

    kind: ClassVar[str]
    any_size: ClassVar[bool] = True
    in_channels: int
    out_channels: int
    norm_eps: float = 1e-5

    @property
    @abstractmethod
    def body(self) -> Part:
        """What the block is made of: it maps the axis ``in`` to the axis ``out``."""

    @property
    def axes(self) -> Mapping[str, Axis]:
        """By name the sizes of the block's tensors that may differ between blocks of one place."""
        return {"in": Axis(self.in_channels), "out": Axis(self.out_channels)}

    @cached_property
    def lengths(self) -> Mapping[str, int]:
        """The length of each axis."""
        return {name: axis.length for name, axis in self.axes.items()}

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """By dotted name, in the order of the module: every tensor that training changes."""
        return self.body.tensors

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each of ``tensors``."""
        return {name: spec.shape(self.lengths) for name, spec in self.tensors.items()}

    @property
    def ties(self) -> frozenset[tuple[str, str]]:
        """Pairs of axes that must keep the same order of channels because their tensors are added or multiplied."""
        ties: set[tuple[str, str]] = set()
        ties.add((self.body.follow("in", ties), "out"))
        return frozenset(tie for tie in ties if tie[0] != tie[1])

    def build(self) -> nn.Module:
        """A plain module with freshly initialized parameters of its own."""
        return self.body.module(self.lengths)

    def output(self, shape: Shape) -> Shape:
        """The shape of the output for an input of ``shape``."""
        return self._computed(shape).output

    def layers(self, shape: Shape) -> tuple[Layer, ...]:
        """The convolutions, linear layers and products of attention, in their order, with what they compute for an input of ``shape``."""
        return self._computed(shape).layers

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of ``layers`` for one input of ``shape``."""
        return self._computed(shape).macs

    def params(self) -> int:
        """Number of learned parameters: weights, biases, and the scale and shift of norms."""
        return sum(math.prod(self.shapes[name]) for name, spec in self.tensors.items() if spec.role != "statistics")

    def _computed(self, shape: Shape) -> _Computed:
        # Archs are lowered and counted by the thousand, and finding a block by its value takes several times longer than this.
        known = self._known.get(shape)
        if known is None:
            known = self._known[shape] = _compute(self, shape)
        return known

    @cached_property
    def _known(self) -> dict[Shape, _Computed]:
        return {}


class _Computed(NamedTuple):
    output: Shape
    layers: tuple[Layer, ...]
    macs: int


@lru_cache(maxsize=65536)
def _compute(block: Block, shape: Shape) -> _Computed:
    layers: list[Layer] = []
    output = block.body.compute(shape, block.lengths, layers)
    return _Computed(output, tuple(layers), sum(layer.macs for layer in layers))


@dataclass(frozen=True)
class PlacedBlock:
    """A block where it stands.

    Attributes:
        name: dotted place in the network, such as ``stages.2.1``.
        block: what is built there.
        input: shape of its input.
        inputs: places of the blocks that feed it, whose outputs are added; none for the block before, or the network's input.
        beside: values that blocks before it gave and blocks behind it read; here and in ``kept`` what ``lower`` notes.
        kept: how many of its inputs blocks behind it read too.
    """

    name: str
    block: Block
    input: Shape
    inputs: tuple[str, ...] = ()
    beside: int = 0
    kept: int = 0
