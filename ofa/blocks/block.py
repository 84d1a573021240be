"""The base of blocks: axes, tensors, module, output shape and MACs.

A kind of block is a small frozen dataclass with one ``body``, a tree of parts (``ofa.blocks.parts``). Module, tensors, shapes, MACs and
the coupling of channel axes are all derived from the body.
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
    """An elastic dimension of a block.

    Attributes:
        length: number of values.
        rule: the values that a smaller block takes: ``leading`` (channels), ``centre`` (taps of a kernel), or ``resampled``
            (interpolated, such as a grid of positions).
        unit: number of consecutive values that stay together in one order, such as the channels of an attention head.
    """

    length: int
    rule: Literal["leading", "centre", "resampled"] = "leading"
    unit: int = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """The base class of all kinds of blocks.

    Attributes:
        kind: name of the kind, such as ``conv``.
        in_channels, out_channels: channels of the block's input and output.
        norm_eps: epsilon of the block's norms.
        any_size: whether inputs of all sizes go through the same operations, so that one exported file serves them all.
    """

    kind: ClassVar[str]
    any_size: ClassVar[bool] = True
    in_channels: int
    out_channels: int
    norm_eps: float = 1e-5

    @property
    @abstractmethod
    def body(self) -> Part:
        """The tree of parts, which maps channels of axis ``in`` to channels of axis ``out``."""

    @property
    def axes(self) -> Mapping[str, Axis]:
        """Axes by name: the dimensions that may differ between the blocks of one place."""
        return {"in": Axis(self.in_channels), "out": Axis(self.out_channels)}

    @cached_property
    def lengths(self) -> Mapping[str, int]:
        """The length of each axis."""
        return {name: axis.length for name, axis in self.axes.items()}

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """All tensors that training changes, by dotted name, in module order."""
        return self.body.tensors

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each of ``tensors``, by name."""
        return {name: spec.shape(self.lengths) for name, spec in self.tensors.items()}

    @property
    def ties(self) -> frozenset[tuple[str, str]]:
        """Pairs of coupled axes, which must have the same order of channels because their tensors are added or multiplied."""
        ties: set[tuple[str, str]] = set()
        ties.add((self.body.follow("in", ties), "out"))
        return frozenset(tie for tie in ties if tie[0] != tie[1])

    def build(self) -> nn.Module:
        """A plain module with its own parameters, initialized by torch's defaults."""
        return self.body.module(self.lengths)

    def output(self, shape: Shape) -> Shape:
        """The output shape for an input of ``shape``."""
        return self._computed(shape).output

    def layers(self, shape: Shape) -> tuple[Layer, ...]:
        """The convolutions, linear layers and attention products in order, for an input of ``shape``."""
        return self._computed(shape).layers

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of ``layers`` for one input of ``shape``."""
        return self._computed(shape).macs

    def params(self) -> int:
        """Number of learned parameters: weights, biases, and the scale and shift of norms."""
        return sum(math.prod(self.shapes[name]) for name, spec in self.tensors.items() if spec.role != "statistics")

    def _computed(self, shape: Shape) -> _Computed:
        # Cached per object: thousands of archs are counted, and a look-up by the block's value takes several times longer.
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
    """A block at its place in a network.

    Attributes:
        name: dotted place in the network, such as ``stages.2.1``.
        block: the block.
        input: shape of its input.
        inputs: places whose outputs are added to form its input; empty for the previous block, or the network's input.
        beside: number of values that earlier blocks produced for later blocks, alive while this one runs; set by ``lower``.
        kept: number of its inputs that later blocks also read; set by ``lower``.
    """

    name: str
    block: Block
    input: Shape
    inputs: tuple[str, ...] = ()
    beside: int = 0
    kept: int = 0
