"""Parts: the components of blocks. A part describes its tensors and builds the module that owns them.

Sizes are names of the block's axes, so that one description serves blocks of all widths.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from ofa.blocks.modules import AddShortcut, Gated, Residual
from ofa.blocks.runs import Runs, length_of
from ofa.blocks.shape import Shape
from ofa.conv_norm_act import ConvNormAct
from ofa.depthwise import DepthwiseConv2d

__all__ = [
    "Activation",
    "BatchNorm",
    "Chain",
    "Conv",
    "Depthwise",
    "Gate",
    "Layer",
    "Lengths",
    "Linear",
    "Part",
    "Plain",
    "ResidualChain",
    "Role",
    "Shortcut",
    "TensorSpec",
    "activation",
    "average_pool",
    "conv_norm_act",
    "flatten",
    "global_pool",
    "max_pool",
]

Activation = Literal["relu", "relu6", "h_swish", "h_sigmoid", "gelu"]

Role = Literal["decayed", "undecayed", "statistics"]
"""Weights with weight decay, parameters without, and running statistics of batch norms."""

Lengths = Mapping[str, int]

BATCH_NORM_MOMENTUM = 0.1


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a block.

    Attributes:
        role: how it is trained.
        dims: for each dimension an axis, a fixed length, or its runs.
        ranks: the dimension of input channels whose importance these weights show; None if there is none.
        ships: whether a shipped network has it; a batch norm's scale and statistics are folded into the weights before it.
        scales: whether it is the scale of a batch norm.
    """

    role: Role
    dims: tuple[str | int | Runs, ...]
    ranks: int | None = None
    ships: bool = True
    scales: bool = False

    def shape(self, lengths: Lengths) -> tuple[int, ...]:
        """The tensor's shape for axes of these lengths."""
        return tuple(
            lengths[dim] if isinstance(dim, str) else dim if isinstance(dim, int) else length_of(dim, lengths) for dim in self.dims
        )


@dataclass(frozen=True)
class Layer:
    """The work of a convolution, linear layer or attention product for one input.

    Attributes:
        weights: number of weights, without bias.
        output: shape of the output.
        depthwise: whether each channel has its own filter.
        products: multiply-accumulates between activations (attention), not with weights.
    """

    weights: int
    output: Shape
    depthwise: bool = False
    products: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates: each weight is used once per output position, plus ``products``."""
        return self.weights * self.output.positions + self.products


class Part(ABC):
    """A component of a block; the defaults are for a part without tensors that keeps shape and channels."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Tensors by dotted name within the part's module, in module order."""
        return {}

    @abstractmethod
    def module(self, lengths: Lengths) -> nn.Module:
        """Build the module for axes of these lengths."""

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        """The output shape for an input of ``shape``; the part's layers are appended to ``layers``."""
        return shape

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        """The axis of the output channels for input channels of ``axis``; pairs of coupled axes are added to ``ties``."""
        return axis


# -- leaves -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Weighted(Part):
    """A layer with weights, from the axis ``inputs`` to the axis ``outputs``."""

    inputs: str
    outputs: str
    bias: bool = False
    depthwise: ClassVar[bool] = False

    @property
    @abstractmethod
    def weight(self) -> TensorSpec:
        """The tensor of weights."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        bias = {"bias": TensorSpec("undecayed", (self.outputs,))} if self.bias else {}
        return {"weight": self.weight, **bias}

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        output = shape.of_channels(lengths[self.outputs])
        layers.append(Layer(math.prod(self.weight.shape(lengths)), output, self.depthwise))
        return output

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        return self.outputs


@dataclass(frozen=True)
class Conv(_Weighted):
    """A convolution padded by half of its kernel.

    Attributes:
        kernel: side in pixels, or the axis of its taps.
        stride: in both directions.
        ranks: whether its weights count for the importance of its input channels.
    """

    kernel: str | int = 1
    stride: int = 1
    ranks: bool = True

    @property
    def weight(self) -> TensorSpec:
        return TensorSpec("decayed", (self.outputs, self.inputs, self.kernel, self.kernel), ranks=1 if self.ranks else None)

    def side(self, lengths: Lengths) -> int:
        """Side of the kernel in pixels."""
        return lengths[self.kernel] if isinstance(self.kernel, str) else self.kernel

    def module(self, lengths: Lengths) -> nn.Module:
        side = self.side(lengths)
        return nn.Conv2d(lengths[self.inputs], lengths[self.outputs], side, self.stride, side // 2, bias=self.bias)

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        return super().compute(shape.strided(self.side(lengths), self.stride), lengths, layers)


@dataclass(frozen=True)
class Depthwise(Conv):
    """A depthwise convolution without bias; ``inputs`` and ``outputs`` are the same axis."""

    depthwise: ClassVar[bool] = True

    @property
    def weight(self) -> TensorSpec:
        return TensorSpec("decayed", (self.outputs, 1, self.kernel, self.kernel))

    def module(self, lengths: Lengths) -> nn.Module:
        return DepthwiseConv2d(lengths[self.outputs], self.side(lengths), self.stride)


@dataclass(frozen=True)
class Linear(_Weighted):
    """A linear layer."""

    @property
    def weight(self) -> TensorSpec:
        return TensorSpec("decayed", (self.outputs, self.inputs), ranks=1)

    def module(self, lengths: Lengths) -> nn.Module:
        return nn.Linear(lengths[self.inputs], lengths[self.outputs], bias=self.bias)


@dataclass(frozen=True)
class BatchNorm(Part):
    """Batch norm over the channels of an axis."""

    axis: str
    eps: float

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        dims = (self.axis,)
        statistics = {name: TensorSpec("statistics", dims, ships=False) for name in ("running_mean", "running_var")}
        return {"weight": TensorSpec("undecayed", dims, ships=False, scales=True), "bias": TensorSpec("undecayed", dims), **statistics}

    def module(self, lengths: Lengths) -> nn.Module:
        return nn.BatchNorm2d(lengths[self.axis], eps=self.eps, momentum=BATCH_NORM_MOMENTUM)


@dataclass(frozen=True)
class Plain(Part):
    """A module without tensors.

    Attributes:
        make: builds the module.
        reaches: function from input shape to output shape; None if the shape does not change.
    """

    make: Callable[[], nn.Module]
    reaches: Callable[[Shape], Shape] | None = None

    def module(self, lengths: Lengths) -> nn.Module:
        return self.make()

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        return shape if self.reaches is None else self.reaches(shape)


# -- composite parts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain(Part):
    """Named parts in sequence."""

    parts: Mapping[str, Part]
    container: ClassVar[type[nn.Sequential]] = nn.Sequential

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {f"{name}.{local}": spec for name, part in self.parts.items() for local, spec in part.tensors.items()}

    def module(self, lengths: Lengths) -> nn.Module:
        return self.container(OrderedDict((name, part.module(lengths)) for name, part in self.parts.items()))

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        for part in self.parts.values():
            shape = part.compute(shape, lengths, layers)
        return shape

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        for part in self.parts.values():
            axis = part.follow(axis, ties)
        return axis


class _ConvNormActChain(Chain):
    container = ConvNormAct


class ResidualChain(Chain):
    """A chain whose input is added to its output."""

    container: ClassVar[type[nn.Sequential]] = Residual

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        reached = super().follow(axis, ties)
        ties.add((axis, reached))
        return reached


class Gate(ResidualChain):
    """A chain that computes a gate [C, 1, 1], by which its input is multiplied."""

    container = Gated

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        super().compute(shape, lengths, layers)
        return shape


@dataclass(frozen=True)
class Shortcut(Part):
    """A chain plus a shortcut, then an activation.

    Attributes:
        body: the chain; its parts have their names directly in the block.
        shortcut: applied to the input before it is added; None for the input itself.
        activation: applied to the sum.
    """

    body: Chain
    shortcut: Part | None
    activation: Part

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        shortcut = {} if self.shortcut is None else {"downsample": self.shortcut}
        return Chain({**self.body.parts, **shortcut}).tensors

    def module(self, lengths: Lengths) -> nn.Module:
        layers = {name: part.module(lengths) for name, part in self.body.parts.items()}
        shortcut = None if self.shortcut is None else self.shortcut.module(lengths)
        return AddShortcut(layers, shortcut, self.activation.module(lengths))

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        reached = self.body.compute(shape, lengths, layers)
        if self.shortcut is not None:
            self.shortcut.compute(shape, lengths, layers)
        return reached

    def follow(self, axis: str, ties: set[tuple[str, str]]) -> str:
        reached = self.body.follow(axis, ties)
        ties.add((reached, axis if self.shortcut is None else self.shortcut.follow(axis, ties)))
        return reached


# -- common parts -----------------------------------------------------------------------------------------------------


def conv_norm_act(conv: Conv, eps: float, after: Activation | None = None) -> Chain:
    """A convolution, its batch norm, and optionally an activation.

    Args:
        conv: the convolution.
        eps: epsilon of the batch norm.
        after: the activation; None for none.
    """
    last = {} if after is None else {"activation": activation(after)}
    return _ConvNormActChain({"conv": conv, "norm": BatchNorm(conv.outputs, eps), **last})


_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "h_swish": nn.Hardswish,
    "h_sigmoid": nn.Hardsigmoid,
    "gelu": nn.GELU,
}


def activation(name: Activation) -> Part:
    """The activation with a name."""
    return Plain(_ACTIVATIONS[name])


def global_pool() -> Part:
    """Average over all pixels: (C, H, W) to (C, 1, 1)."""
    return Plain(lambda: nn.AdaptiveAvgPool2d(1), lambda shape: Shape(shape.channels, 1, 1))


def flatten() -> Part:
    """(C, H, W) to (C H W,)."""
    return Plain(nn.Flatten, lambda shape: Shape(shape.values))


def average_pool(stride: int) -> Part:
    """Average over windows of ``stride`` x ``stride`` pixels; windows at the edge may be smaller."""
    return Plain(
        lambda: nn.AvgPool2d(stride, stride, ceil_mode=True),
        lambda shape: Shape(shape.channels, -(-shape.height // stride), -(-shape.width // stride)),
    )


def max_pool(kernel: int, stride: int) -> Part:
    """Maximum over windows of ``kernel`` x ``kernel`` pixels, padded by half of the kernel."""
    return Plain(lambda: nn.MaxPool2d(kernel, stride, padding=kernel // 2), lambda shape: shape.strided(kernel, stride))
