"""Traced blocks: parts of an adopted model, which interpret its code (``ofa.blocks.code``).

Convolutions, norms and linear layers are modules as in any other block. So calibration, synchronized norms, fast depthwise gradients, and
folding of norms on export work here too. Everything else is calls of torch's operators.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ofa.blocks import batch
from ofa.blocks.block import Axis, Block
from ofa.blocks.code import BATCH, Code, Declared, Size, Step, TensorRef, Value, operator_named, parse_code, resolve
from ofa.blocks.parts import Layer, Lengths, Part, TensorSpec
from ofa.blocks.runs import length_of
from ofa.blocks.shape import Shape
from ofa.blocks.token_modules import TokenLinear
from ofa.depthwise import DepthwiseConv2d
from ofa.errors import SpaceError

__all__ = ["AnyBatchNorm", "Traced", "TracedBlock"]

_LARGEST_VALUE = 2**31
"""Largest tensor of one image, in values; a file whose code produces a larger one is refused."""


@dataclass(frozen=True, kw_only=True)
class TracedBlock(Block):
    """A part of an adopted model.

    Attributes:
        code: its text; blocks with the same code differ in sizes only.
        sizes: the length of each axis, in the order of the code's axes.
    """

    kind: ClassVar[str] = "traced"
    any_size: ClassVar[bool] = False
    code: str
    sizes: tuple[int, ...]

    @property
    def axes(self) -> Mapping[str, Axis]:
        return {name: Axis(size) for name, size in zip(parse_code(self.code).axes, self.sizes, strict=True)}

    @property
    def body(self) -> Part:
        return _body(self.code)

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return self.body.tensors

    @property
    def ties(self) -> frozenset[tuple[str, str]]:
        """Empty: the couplings of an adopted model are in its space (``AdoptedSpace.ties``)."""
        return frozenset()


@lru_cache(maxsize=4096)
def _body(code: str) -> Part:
    return _TracedPart(parse_code(code))


@dataclass(frozen=True, eq=False)
class _TracedPart(Part):
    code: Code

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {name: spec for declared in self.code.declared.values() for name, spec in _specs(declared)}

    def module(self, lengths: Lengths) -> nn.Module:
        return Traced(self.code, lengths)

    def compute(self, shape: Shape, lengths: Lengths, layers: list[Layer]) -> Shape:
        output, found = _counted(self, shape, tuple(lengths.items()))
        layers += found
        return output

    def count(self, shape: Shape, lengths: Lengths) -> tuple[Shape, tuple[Layer, ...]]:
        """The output shape, and the layers."""
        layers: list[Layer] = []
        try:
            with torch.no_grad(), torch.device("meta"):
                module = Traced(self.code, lengths).eval()
                output = _Counting(layers).run(module, torch.empty(1, *shape, device="meta"))
        except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            words = " ".join(str(error).split())[:200]
            raise SpaceError(
                f"a traced block must accept an input of {shape.words}, but its code fails: {words}; adopt the model for this size"
            ) from error
        if not isinstance(output, Tensor):
            raise SpaceError("a traced block must return one tensor, but its code returns several; adopt the model again")
        return Shape(*output.shape[1:]), tuple(layers)


@lru_cache(maxsize=65536)
def _counted(part: _TracedPart, shape: Shape, lengths: tuple[tuple[str, int], ...]) -> tuple[Shape, tuple[Layer, ...]]:
    # Cached: ``AdoptedSpace`` needs the output shape before it builds a block, and the layers come from the same run.
    return part.count(shape, dict(lengths))


def _specs(declared: Declared) -> Iterator[tuple[str, TensorSpec]]:
    """(name, tensor) pairs of a layer, in module order."""
    name, shape = declared.name, declared.shape
    outputs = (shape[0],)
    match declared.kind:
        case "Parameter":
            yield name, TensorSpec("decayed" if len(shape) > 1 else "undecayed", shape)
        case "Buffer":
            yield name, TensorSpec("statistics", shape)
        case "Conv2d" | "Linear":
            # The second dimension of a grouped weight does not index all input channels.
            grouped = declared.kind == "Conv2d" and declared.arguments[4] != 1
            yield f"{name}.weight", TensorSpec("decayed", shape, ranks=None if grouped else 1)
            if declared.arguments[0]:
                yield f"{name}.bias", TensorSpec("undecayed", outputs)
        case "BatchNorm":
            yield f"{name}.weight", TensorSpec("undecayed", outputs, ships=False, scales=True)
            yield f"{name}.bias", TensorSpec("undecayed", outputs)
            yield f"{name}.running_mean", TensorSpec("statistics", outputs, ships=False)
            yield f"{name}.running_var", TensorSpec("statistics", outputs, ships=False)
        case "LayerNorm":
            yield f"{name}.weight", TensorSpec("undecayed", outputs)
            yield f"{name}.bias", TensorSpec("undecayed", outputs)


# -- modules ----------------------------------------------------------------------------------------------------------


class AnyBatchNorm(nn.BatchNorm2d):
    """Batch norm for images [B, C, H, W], tokens [B, C, T] or vectors [B, C]."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any dimensions: the code of a traced block has already run with them."""


class Traced(nn.Module):
    """Interprets code for given lengths of its axes.

    Args:
        code: parsed code.
        lengths: of its axes.
    """

    def __init__(self, code: Code, lengths: Lengths) -> None:
        super().__init__()
        for declared in code.declared.values():
            _place(self, declared, lengths)
        self.steps = [_bound(step, lengths) for step in code.steps]
        self.frees = _frees(code.steps)
        self.lengths = dict(lengths)

    def forward(self, x: Tensor) -> Tensor:
        """Run all steps; returns the result of the last."""
        result: Tensor = self.run(x, _called)
        return result

    def run(self, x: Tensor, call: Any) -> Any:
        """Run all steps, each by ``call(step, function, args, kwargs)``."""
        values: dict[str, Any] = {"v0": x}
        output = None
        for step, free in zip(self.steps, self.frees, strict=True):
            args = [self._fetched(each, values) for each in step.args]
            kwargs = {name: self._fetched(each, values) for name, each in step.kwargs.items()}
            function = self.at(step.target) if step.kind == "layer" else operator.getitem if step.kind == "item" else step.function
            output = values[step.output] = call(step, function, args, kwargs)
            for name in free:
                del values[name]
        return output

    def at(self, name: str) -> Any:
        """The layer or tensor with a dotted name; without ``get_submodule``, whose checks cost more than small layers."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            module = module._modules[part]  # type: ignore[assignment]
        found = module._modules.get(leaf)
        return getattr(module, leaf) if found is None else found

    def _fetched(self, argument: Any, values: Mapping[str, Any]) -> Any:
        kind = type(argument)
        if kind is Value:
            return values[argument.name]
        if kind is list:
            return [self._fetched(each, values) for each in argument]
        if kind is TensorRef:
            # Results depend in the last bit on memory layout and on whether gradients are needed. Both differ between a subnet's view and
            # an extracted copy, so they are made equal here.
            found = self.at(argument.name).contiguous()
            return found if torch.is_grad_enabled() else found.detach()
        if kind is Size:
            return argument.value({**self.lengths, BATCH: batch.batch_size(values["v0"])})
        return argument


@dataclass(frozen=True, eq=False)
class _Bound(Step):
    """A step with its operator and with sizes replaced by numbers."""

    function: Any = None


def _bound(step: Step, lengths: Lengths) -> _Bound:
    function = operator_named(step.target) if step.kind == "operator" else None
    args = tuple(resolve(each, lengths) for each in step.args)
    kwargs = {name: resolve(each, lengths) for name, each in step.kwargs.items()}
    return _Bound(step.output, step.kind, step.target, args, kwargs, function)


def _frees(steps: tuple[Step, ...]) -> list[list[str]]:
    """For each step, the values to free after it; the input is never freed, because the batch size is read from it."""
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        last[step.output] = number
        for name in _read((*step.args, *step.kwargs.values())):
            last[name] = number
    return [[name for name, at in last.items() if at == number < len(steps) - 1 and name != "v0"] for number in range(len(steps))]


def _read(arguments: Any) -> Iterator[str]:
    for each in arguments:
        if isinstance(each, Value):
            yield each.name
        elif isinstance(each, list):
            yield from _read(each)


def _called(step: Step, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _place(root: nn.Module, declared: Declared, lengths: Lengths) -> None:
    *path, leaf = declared.name.split(".")
    owner = root
    for part in path:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner._modules[part]  # type: ignore[assignment]
    sizes = [length_of(runs, lengths) for runs in declared.shape]
    if declared.kind == "Parameter":
        owner.register_parameter(leaf, nn.Parameter(torch.zeros(sizes)))
    elif declared.kind == "Buffer":
        owner.register_buffer(leaf, torch.zeros(sizes))
    else:
        owner.add_module(leaf, _layer(declared, sizes, lengths))


def _layer(declared: Declared, sizes: list[int], lengths: Lengths) -> nn.Module:
    arguments = [resolve(each, lengths) for each in declared.arguments]
    match declared.kind:
        case "Conv2d":
            bias, stride, padding, dilation, groups = arguments
            return _conv(sizes, bias, stride, padding, dilation, groups)
        case "Linear":
            bias, is_vector = arguments
            return (nn.Linear if is_vector else TokenLinear)(sizes[1], sizes[0], bias=bias)
        case "BatchNorm":
            eps, momentum = arguments
            return AnyBatchNorm(sizes[0], eps=eps, momentum=momentum)
        case "LayerNorm":
            (eps,) = arguments
            return nn.LayerNorm(sizes[0], eps=eps)
    raise AssertionError(declared.kind)


def _conv(sizes: list[int], bias: bool, stride: list[int], padding: list[int], dilation: list[int], groups: int) -> nn.Conv2d:
    outputs, inputs, *kernel = sizes
    side = kernel[0]
    plain = kernel == [side, side] and side % 2 == 1 and padding == [side // 2] * 2 and dilation == [1, 1] and stride == stride[:1] * 2
    if plain and groups == outputs > 1 == inputs:
        return DepthwiseConv2d(outputs, side, stride[0], bias=bias)
    return nn.Conv2d(inputs * groups, outputs, kernel, stride, padding, dilation, groups, bias)  # type: ignore[arg-type]


# -- costs ------------------------------------------------------------------------------------------------------------


class _Counting:
    """Records the layers of a block while it runs on the meta device."""

    def __init__(self, layers: list[Layer]) -> None:
        self._layers = layers

    def run(self, module: Traced, x: Tensor) -> Any:
        return module.run(x, self._call)

    def _call(self, step: Step, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if isinstance(function, AnyBatchNorm | nn.LayerNorm):
            return _normalized(function, *args)
        output = function(*args, **kwargs)
        for each in output if isinstance(output, (list, tuple)) else (output,):
            if isinstance(each, Tensor) and each.numel() > _LARGEST_VALUE:
                raise ValueError(f"a tensor of {each.numel()} values")
        if isinstance(function, nn.Conv2d):
            depthwise = function.weight.shape[1] == 1 and function.groups > 1
            self._layers.append(Layer(function.weight.numel(), Shape(*output.shape[1:]), depthwise))
        elif isinstance(function, nn.Linear):
            self._layers.append(Layer(function.weight.numel(), _image(output)))
        elif step.kind == "operator":
            products = _products(step.target.partition(".")[0], args, output)
            if products:
                self._layers.append(Layer(0, _image(output), products=products))
        return output


def _normalized(norm: AnyBatchNorm | nn.LayerNorm, x: Tensor) -> Tensor:
    """A tensor of the output's shape, which is the input's; torch's norms on the meta device take longer than all other layers."""
    size, found = (norm.num_features, x.shape[1]) if isinstance(norm, AnyBatchNorm) else (norm.normalized_shape[0], x.shape[-1])
    if size != found:
        raise ValueError(f"a norm of {size} channels gets {found}")
    return x


def _image(output: Tensor) -> Shape:
    """The shape of a tensor as (T, D) or (D,), with all leading dimensions merged, because batch and tokens may be merged in it."""
    *others, last = output.shape
    rows = math.prod(others)
    return Shape(rows, last) if len(others) > 1 or rows > 1 else Shape(last)


def _products(name: str, args: list[Any], output: Tensor) -> int:
    """Multiply-accumulates of an operator that is no layer: matrix products, and convolutions with computed weights."""
    match name:
        case "matmul" | "mm" | "bmm":
            return int(output.numel() * args[0].shape[-1])
        case "addmm" | "baddbmm" | "linear":
            return int(output.numel() * args[1].shape[-1])
        case "einsum":
            equation, factors = args[0].replace(" ", "").partition("->")[0], args[1]
            if len(factors) != 2 or "." in equation:
                raise ValueError(f"einsum whose MACs cannot be counted: {args[0]}")
            words = zip(equation.split(","), factors, strict=True)
            return math.prod({label: size for word, each in words for label, size in zip(word, each.shape, strict=True)}.values())
        case "conv2d" | "convolution" | "conv1d":
            return int(output.numel() * args[1][0].numel())
        case "scaled_dot_product_attention":
            query, key, value = args[:3]
            return int(query.numel() * key.shape[-2] + query.numel() // query.shape[-1] * key.shape[-2] * value.shape[-1])
    return 0
