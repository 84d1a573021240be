"""Blocks: what is built. Each kind is a small frozen value from which the module, its MACs and its parameters all follow.

A block is a list of layers over named axes of channels (``in``, ``mid``, ``out`` ...). That one list gives the modules, the
counts, and (in ofa.sharing) which axes of each tensor are sliced, so none of them can disagree.

Shapes: B batch, C channels, H W pixels. Blocks map x_BCHW to y_BCHW; those behind the pooling give [B, C].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import nn

from ofa.conv_norm_act import ConvNormAct
from ofa.depthwise import DepthwiseConv2d

__all__ = [
    "Block",
    "Bottleneck",
    "Classifier",
    "ConvBlock",
    "FeatureMix",
    "InvertedResidual",
    "Layer",
    "MaxPool",
    "PlacedBlock",
    "ResidualConv",
    "assemble",
    "build_empty",
    "build_network",
    "initialize",
    "make_divisible",
]

Activation = Literal["relu", "relu6", "h_swish", "h_sigmoid"]

BATCH_NORM_MOMENTUM = 0.1


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, never below 90 % of it (the rounding of the MobileNet family)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution (or the linear layer) of a block with what follows it.

    Attributes:
        name: dotted name of its module within the block.
        inputs, outputs: names of the axes of channels it maps from and to.
        at: where its output stands: at the block's input size, at its output size, or pooled to one pixel.
    """

    name: str
    inputs: str
    outputs: str
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    linear: bool = False
    bias: bool = False
    norm: bool = True
    activation: Activation | None = None
    at: Literal["input", "output", "pooled"] = "output"

    def weights(self, channels: Mapping[str, int]) -> int:
        """Number of weights, without bias and batch norm."""
        inputs = 1 if self.depthwise else channels[self.inputs]
        return channels[self.outputs] * inputs * self.kernel**2


@dataclass(frozen=True, kw_only=True)
class Block:
    """What every kind of block offers.

    Attributes:
        in_channels, out_channels: channels of the block's input and output.
        norm_eps: epsilon of its batch norms.
    """

    kind: ClassVar[str]
    in_channels: int
    out_channels: int
    norm_eps: float = 1e-5

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """The layers with weights, in the order of the computation."""

    @property
    def channels(self) -> Mapping[str, int]:
        """The length of each axis of channels."""
        return {"in": self.in_channels, "out": self.out_channels}

    @property
    def importance(self) -> Mapping[str, tuple[str, ...]]:
        """By axis the layers that read it, whose weights say how much each of its channels matters."""
        return {}

    @property
    def tied_axes(self) -> tuple[tuple[str, str], ...]:
        """Pairs of axes that must keep the same order of channels because their tensors are added."""
        return ()

    @abstractmethod
    def build(self) -> nn.Module:
        """A plain module with freshly initialized parameters of its own."""

    def output_size(self, input_size: int) -> int:
        """Side of the output in pixels for a square input of side ``input_size``."""
        return -(-input_size // getattr(self, "stride", 1))

    def macs(self, input_size: int) -> int:
        """Multiply-accumulates of the convolutions and linear layers for one square image of side ``input_size``."""
        side = {"input": input_size, "output": self.output_size(input_size), "pooled": 1}
        return sum(layer.weights(self.channels) * side[layer.at] ** 2 for layer in self.layers)

    def params(self) -> int:
        """Number of learned parameters: weights, biases, and the scale and shift of batch norms."""
        extra = sum(self.channels[layer.outputs] * (2 * layer.norm + layer.bias) for layer in self.layers)
        return sum(layer.weights(self.channels) for layer in self.layers) + extra

    def _modules(self) -> dict[str, nn.Module]:
        return {layer.name: _conv_norm_act(layer, self.channels, self.norm_eps) for layer in self.layers}


@dataclass(frozen=True)
class PlacedBlock:
    """A block where it stands.

    Attributes:
        name: dotted place in the network, such as ``stages.2.1``.
        block: what is built there.
        input_size: side of its square input in pixels.
    """

    name: str
    block: Block
    input_size: int


# -- kinds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ConvBlock(Block):
    """Convolution, batch norm, activation."""

    kind: ClassVar[str] = "conv"
    kernel: int = 1
    stride: int = 1
    activation: Activation = "relu"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(name="conv", inputs="in", outputs="out", kernel=self.kernel, stride=self.stride, activation=self.activation),)

    @property
    def importance(self) -> Mapping[str, tuple[str, ...]]:
        return {"in": ("conv",)}

    def build(self) -> nn.Module:
        return _sequential(self._modules())


@dataclass(frozen=True, kw_only=True)
class ResidualConv(Block):
    """A convolution with batch norm and activation, added to its input (the elastic part of the ResNet-D stem)."""

    kind: ClassVar[str] = "residual_conv"
    kernel: int = 3
    activation: Activation = "relu"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(name="conv", inputs="in", outputs="out", kernel=self.kernel, activation=self.activation),)

    @property
    def importance(self) -> Mapping[str, tuple[str, ...]]:
        return {"in": ("conv",)}

    @property
    def tied_axes(self) -> tuple[tuple[str, str], ...]:
        return (("in", "out"),)

    def build(self) -> nn.Module:
        return _Residual(OrderedDict(self._modules()))


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(Block):
    """Expand, depthwise, optional squeeze-excite, project (MobileNetV2 and V3; Sandler et al. 2018, Howard et al. 2019).

    Attributes:
        mid_channels: channels of the depthwise convolution; there is no expanding convolution if ``expand`` is False.
        squeeze_excite: whether the depthwise output is gated (reduction 4, hard sigmoid).
        residual: whether the input is added to the output.
    """

    kind: ClassVar[str] = "inverted_residual"
    mid_channels: int
    kernel: int
    stride: int = 1
    activation: Activation = "relu"
    expand: bool = True
    squeeze_excite: bool = False
    residual: bool = False

    @property
    def channels(self) -> Mapping[str, int]:
        squeeze = make_divisible(self.mid_channels // 4)
        return {"in": self.in_channels, "mid": self.mid_channels, "squeeze": squeeze, "out": self.out_channels}

    @property
    def layers(self) -> tuple[Layer, ...]:
        mid, act = "mid" if self.expand else "in", self.activation
        layers = [Layer(name="depthwise", inputs=mid, outputs=mid, kernel=self.kernel, stride=self.stride, depthwise=True, activation=act)]
        if self.expand:
            layers.insert(0, Layer(name="expand", inputs="in", outputs="mid", activation=act, at="input"))
        if self.squeeze_excite:
            layers += [
                Layer(name="squeeze.reduce", inputs=mid, outputs="squeeze", bias=True, norm=False, activation="relu", at="pooled"),
                Layer(name="squeeze.expand", inputs="squeeze", outputs=mid, bias=True, norm=False, activation="h_sigmoid", at="pooled"),
            ]
        return (*layers, Layer(name="project", inputs=mid, outputs="out"))

    @property
    def importance(self) -> Mapping[str, tuple[str, ...]]:
        # Squeeze-excite reads "mid" too, but only through an average; what a channel is worth is what it projects.
        readers: dict[str, tuple[str, ...]] = {"mid": ("project",), "in": ("expand",)} if self.expand else {"in": ("project",)}
        return {**readers, "squeeze": ("squeeze.expand",)} if self.squeeze_excite else readers

    @property
    def tied_axes(self) -> tuple[tuple[str, str], ...]:
        return (("in", "out"),) if self.residual else ()

    def build(self) -> nn.Module:
        modules = self._modules()
        if self.squeeze_excite:
            gate = {"pool": nn.AdaptiveAvgPool2d(1), "reduce": modules.pop("squeeze.reduce"), "expand": modules.pop("squeeze.expand")}
            project = modules.pop("project")
            modules = {**modules, "squeeze": _Gate(OrderedDict(gate)), "project": project}
        return _Residual(OrderedDict(modules)) if self.residual else _sequential(modules)


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Block):
    """Reduce, convolve, expand, with the pooled shortcut of ResNet-D where the shape changes (He et al. 2016 and 2019).

    Attributes:
        mid_channels: channels of the convolution in the middle.
        downsample: whether the shortcut is an average pool and a convolution; otherwise it is the input itself.
    """

    kind: ClassVar[str] = "bottleneck"
    mid_channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu"
    downsample: bool = False

    @property
    def channels(self) -> Mapping[str, int]:
        # The two inner axes have the same length, but each has an order of channels of its own.
        return {"in": self.in_channels, "mid1": self.mid_channels, "mid2": self.mid_channels, "out": self.out_channels}

    @property
    def layers(self) -> tuple[Layer, ...]:
        body = (
            Layer(name="reduce", inputs="in", outputs="mid1", activation=self.activation, at="input"),
            Layer(name="conv", inputs="mid1", outputs="mid2", kernel=self.kernel, stride=self.stride, activation=self.activation),
            Layer(name="expand", inputs="mid2", outputs="out"),
        )
        return (*body, Layer(name="downsample", inputs="in", outputs="out")) if self.downsample else body

    @property
    def importance(self) -> Mapping[str, tuple[str, ...]]:
        return {"in": ("reduce", "downsample") if self.downsample else ("reduce",), "mid1": ("conv",), "mid2": ("expand",)}

    @property
    def tied_axes(self) -> tuple[tuple[str, str], ...]:
        return () if self.downsample else (("in", "out"),)

    def build(self) -> nn.Module:
        modules = self._modules()
        shortcut = modules.pop("downsample", None)
        if shortcut is not None and self.stride > 1:
            pool = nn.AvgPool2d(self.stride, self.stride, ceil_mode=True)
            shortcut = nn.Sequential(OrderedDict([("pool", pool), *shortcut.named_children()]))
        return _Bottleneck(modules["reduce"], modules["conv"], modules["expand"], shortcut, _activation(self.activation))


@dataclass(frozen=True, kw_only=True)
class MaxPool(Block):
    """Max pooling with a 3x3 window."""

    kind: ClassVar[str] = "max_pool"
    stride: int = 2

    @property
    def layers(self) -> tuple[Layer, ...]:
        return ()

    @property
    def tied_axes(self) -> tuple[tuple[str, str], ...]:
        return (("in", "out"),)

    def build(self) -> nn.Module:
        return nn.MaxPool2d(3, self.stride, padding=1)


@dataclass(frozen=True, kw_only=True)
class FeatureMix(Block):
    """Global average pooling, then a linear layer without bias, and an activation (the head of MobileNetV3); gives [B, C].

    Others write the linear layer as a 1x1 convolution of one pixel, which is the same and several times slower to train.
    """

    kind: ClassVar[str] = "feature_mix"
    activation: Activation = "h_swish"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(name="linear", inputs="in", outputs="out", linear=True, norm=False, at="pooled"),)

    def output_size(self, input_size: int) -> int:
        return 1

    def build(self) -> nn.Module:
        pool = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        return _sequential({**pool, **self._modules(), "activation": _activation(self.activation)})


@dataclass(frozen=True, kw_only=True)
class Classifier(Block):
    """Global average pooling where the input still has pixels, dropout, and the linear layer that gives the logits [B, classes]."""

    kind: ClassVar[str] = "classifier"
    pool: bool = False

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(name="linear", inputs="in", outputs="out", linear=True, bias=True, norm=False, at="pooled"),)

    @property
    def importance(self) -> Mapping[str, tuple[str, ...]]:
        return {"in": ("linear",)}

    def output_size(self, input_size: int) -> int:
        return 1

    def build(self) -> nn.Module:
        pool = {"pool": nn.AdaptiveAvgPool2d(1)} if self.pool else {}
        return _sequential({**pool, "flatten": nn.Flatten(), "dropout": nn.Dropout(0.0), **self._modules()})


# -- networks ---------------------------------------------------------------------------------------------------------


def assemble(modules: Mapping[str, nn.Module], *, training: bool = True) -> nn.Sequential:
    """One sequential network of modules by their dotted names, nested by the dots and in the given order.

    Args:
        modules: the parts; their own modes stay as they are.
        training: mode of the containers around them.
    """
    root = nn.Sequential()
    root.training = training
    for name, module in modules.items():
        parent = root
        *path, leaf = name.split(".")
        for part in path:
            child = parent._modules.get(part)
            if child is None:
                child = nn.Sequential()
                child.training = training
                parent._modules[part] = child
            assert isinstance(child, nn.Sequential)
            parent = child
        # add_module's checks cost more than all else here, and a subnet is assembled for every training step.
        parent._modules[leaf] = module
    return root


def build_network(lowered: Iterable[PlacedBlock], *, generator: torch.Generator | None = None) -> nn.Sequential:
    """A network with freshly initialized storage of its own, such as one trained without a supernet.

    Args:
        lowered: the blocks from the input to the logits, as ``ofa.families.lower`` gives them.
        generator: source of the initial weights; torch's default one if None.
    """
    network = assemble({placed.name: build_empty(placed.block) for placed in lowered})
    network.to_empty(device="cpu")
    initialize(network, generator)
    return network


def build_empty(block: Block) -> nn.Module:
    """The module of a block whose tensors are on the meta device: they have shapes and no storage yet."""
    return _replica(_empty(block))


@lru_cache(maxsize=4096)
def _empty(block: Block) -> nn.Module:
    with torch.device("meta"):
        return block.build()


def _replica(module: nn.Module) -> nn.Module:
    """A module like ``module``, tensors and constants shared; twenty times faster than building it, whose initialization is lost."""
    replica = module.__new__(type(module))
    replica.__dict__ = {key: value.copy() if isinstance(value, dict) else value for key, value in module.__dict__.items()}
    for name, child in module._modules.items():
        replica._modules[name] = child if child is None else _replica(child)
    return replica


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of every layer anew, in place.

    Convolutions are normal with variance 2 / fan-out (He et al., ICCV 2015), the linear layer uniform within 1 / sqrt(fan-in);
    biases are 0 and batch norms the identity.
    """
    for module in network.modules():
        match module:
            case nn.Conv2d():
                fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
            case nn.Linear():
                bound = 1.0 / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=generator)
            case nn.BatchNorm2d():
                module.weight.fill_(1.0)
                module.reset_running_stats()
            case _:
                continue
        if module.bias is not None:
            module.bias.zero_()


# -- modules ----------------------------------------------------------------------------------------------------------


class _Residual(nn.Sequential):
    """Adds the input to the output of the sequence."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        body_BCHW: torch.Tensor = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        return body_BCHW + x_BCHW


class _Gate(nn.Sequential):
    """Multiplies the input by the gate [B, C, 1, 1] that the sequence computes from it."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        gate_BC11: torch.Tensor = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        return x_BCHW * gate_BC11


class _Bottleneck(nn.Module):
    """Three layers and a shortcut, added and activated."""

    def __init__(self, reduce: nn.Module, conv: nn.Module, expand: nn.Module, downsample: nn.Module | None, activation: nn.Module) -> None:
        super().__init__()
        self.reduce = reduce
        self.conv = conv
        self.expand = expand
        self.downsample = downsample
        self.activation = activation

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = self.expand(self.conv(self.reduce(x_BCHW)))
        shortcut_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        activated: torch.Tensor = self.activation(y_BCHW + shortcut_BCHW)
        return activated


def _activation(name: Activation) -> nn.Module:
    match name:
        case "relu":
            return nn.ReLU(inplace=True)
        case "relu6":
            return nn.ReLU6(inplace=True)
        case "h_swish":
            return nn.Hardswish()
        case "h_sigmoid":
            return nn.Hardsigmoid()


def _conv_norm_act(layer: Layer, channels: Mapping[str, int], eps: float) -> nn.Module:
    inputs, outputs = channels[layer.inputs], channels[layer.outputs]
    if layer.linear:
        return nn.Linear(inputs, outputs, bias=layer.bias)
    conv: nn.Conv2d
    if layer.depthwise:
        conv = DepthwiseConv2d(inputs, layer.kernel, layer.stride)
    else:
        conv = nn.Conv2d(inputs, outputs, layer.kernel, layer.stride, layer.kernel // 2, bias=layer.bias)
    activation = None if layer.activation is None else _activation(layer.activation)
    if layer.norm:
        return ConvNormAct(conv, nn.BatchNorm2d(outputs, eps=eps, momentum=BATCH_NORM_MOMENTUM), activation)
    return _sequential({"conv": conv} if activation is None else {"conv": conv, "activation": activation})


def _sequential(modules: Mapping[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))
