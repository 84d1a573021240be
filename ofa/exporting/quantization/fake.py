"""Fake quantization: a quantized file computed by torch with gradients, with the file's own rounding, so that weights can be trained.

The positions of rounding are read from the file itself, so that exactly the file's activations are rounded, and float layers are not.
Gradients pass rounding by the straight-through estimator, and are zero outside a range (Jacob et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ofa.errors import ExportError
from ofa.exporting.quantization.floats import LAYERS
from ofa.exporting.torch_operators import TORCH_OPERATORS

__all__ = ["FakeQuantized"]

_Array = np.ndarray[Any, np.dtype[Any]]
_Step = tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...], dict[str, Any]]
"""Function, names of inputs, names of outputs, attributes."""


class _Rounded(nn.Module):
    """Fake quantization of a layer's weight; its scales follow the largest absolute values, in the file's proportion.

    Args:
        weight: the float32 weight that the file was made from.
        scale: the file's scale, one for the layer or one for each channel.
        axis: dimension of the channels.
        low: least integer.
        high: largest integer.
    """

    def __init__(self, weight: Tensor, scale: Tensor, axis: int, low: int, high: int) -> None:
        super().__init__()
        self._axis, self._low, self._high = axis, low, high
        self._others = [each for each in range(weight.ndim) if each != axis or scale.numel() == 1]
        most = self._most(weight)
        alive = most > 0
        steps = torch.where(alive, scale.flatten() / most, 0)
        self.register_buffer("_steps", torch.where(alive, steps, steps.max()))
        self.register_buffer("_zeros", torch.zeros(scale.numel(), dtype=torch.int32))
        self._steps: Tensor
        self._zeros: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the file would hold it."""
        scale = (self._steps * self._most(weight)).clamp_min(torch.finfo(weight.dtype).tiny)
        if scale.numel() == 1:
            return torch.fake_quantize_per_tensor_affine(weight, scale, self._zeros, self._low, self._high)
        return torch.fake_quantize_per_channel_affine(weight, scale, self._zeros, self._axis, self._low, self._high)

    def _most(self, weight: Tensor) -> Tensor:
        return weight.detach().abs().amax(self._others).flatten()


class FakeQuantized(nn.Module):
    """A quantized file as a trainable torch module; a float32 file is computed without rounding.

    Args:
        quantized: a model made from ``model``, with explicit QuantizeLinear and DequantizeLinear, and one scale for each activation.
        model: the float32 model, with the same names of operators; constants of its layers become parameters.

    Raises:
        ExportError: an operator is not in ``TORCH_OPERATORS``.
    """

    def __init__(self, quantized: onnx.ModelProto, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = quantized.graph
        self._model, self._input, self._output = model, graph.input[0].name, graph.output[0].name
        self._arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        floats = {each.name: each for each in model.graph.initializer}
        originals = {node.name: node for node in model.graph.node if node.op_type in LAYERS}
        self._sources = {
            name: source
            for node in graph.node
            if node.name in originals
            for name, source in zip(node.input, originals[node.name].input, strict=True)
            if source in floats
        }
        self.weights = nn.ParameterList()
        self._places: dict[str, int] = {}
        for source in dict.fromkeys(self._sources.values()):
            self._places[source] = len(self.weights)
            self.weights.append(nn.Parameter(torch.from_numpy(numpy_helper.to_array(floats[source]).copy())))
        self.rounding = nn.ModuleList(nn.Identity() for _ in self.weights)
        self._rounded: set[str] = set()
        self._constants: dict[str, str] = {}
        self._steps = list(self._steps_of(graph))
        self._unread = list(_unread(self._steps, self._output))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """The logits."""
        values: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        for name, source in self._sources.items():
            place = self._places[source]
            values[name] = self.rounding[place](self.weights[place]) if name in self._rounded else self.weights[place]
        values |= {self._input: images_BCHW, "": None}
        for (compute, inputs, outputs, attributes), unread in zip(self._steps, self._unread, strict=True):
            found = compute(*(values[name] for name in inputs), **attributes)
            values |= zip(outputs, found if isinstance(found, tuple) else (found,), strict=True)
            for name in unread:
                del values[name]
        result: Tensor = values[self._output]
        return result

    def trained(self) -> onnx.ModelProto:
        """A copy of the float32 model with the module's present weights."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        for tensor in copy.graph.initializer:
            if tensor.name in self._places:
                weight = self.weights[self._places[tensor.name]].detach().cpu().numpy()
                tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
        return copy

    def _steps_of(self, graph: onnx.GraphProto) -> Iterator[_Step]:
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in self._arrays:
                self._add_constant(node)
            elif node.op_type == "DequantizeLinear":
                yield _same, (node.input[0],), (node.output[0],), {}
            elif node.op_type == "QuantizeLinear":
                yield _round, (node.input[0],), (node.output[0],), self._range_of(node)
            elif node.op_type in TORCH_OPERATORS:
                attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
                attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
                for name in node.input:
                    if name in self._arrays and name not in self._sources:
                        self._keep(name, self._arrays[name])
                yield TORCH_OPERATORS[node.op_type], tuple(node.input), tuple(node.output), attributes
            else:
                raise ExportError(
                    f"a network that is tuned in int8 must be of operators that torch computes here, but '{node.name}' is {node.op_type}; "
                    "leave tuning out, or ship it in float32"
                )

    def _add_constant(self, node: onnx.NodeProto) -> None:
        """Enter the output of a DequantizeLinear of constants: a weight that is rounded at every step, or a fixed constant.

        A bias is not rounded: its step is the product of the steps of weights and inputs, hence very small.
        """
        whole, scale = self._arrays[node.input[0]], self._arrays[node.input[1]]
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        name = node.output[0]
        if name not in self._sources:
            zero = self._arrays[node.input[2]].astype(np.float32) if len(node.input) > 2 else np.float32(0)
            shape = [-1 if each == axis % whole.ndim else 1 for each in range(whole.ndim)] if scale.size > 1 else []
            self._keep(name, (whole.astype(np.float32) - np.reshape(zero, shape)) * np.reshape(scale, shape))
        elif whole.dtype != np.int32:
            place, limits = self._places[self._sources[name]], np.iinfo(whole.dtype)
            self._rounded.add(name)
            scales = torch.from_numpy(np.atleast_1d(scale).copy())
            self.rounding[place] = _Rounded(self.weights[place].detach(), scales, axis % whole.ndim, limits.min, limits.max)

    def _keep(self, name: str, array: _Array) -> None:
        if name not in self._constants:
            self._constants[name] = f"constant{len(self._constants)}"
            self.register_buffer(self._constants[name], torch.from_numpy(np.array(array)))

    def _range_of(self, node: onnx.NodeProto) -> dict[str, Any]:
        scale, zero = (self._arrays[name] for name in node.input[1:3])
        limits = np.iinfo(zero.dtype)
        return {"scale": float(scale), "zero": int(zero), "low": limits.min, "high": limits.max}


def _same(value: Tensor) -> Tensor:
    return value


class _StraightThrough(torch.autograd.Function):
    """Rounding to multiples of a scale within limits, with straight-through gradients.

    torch's own function takes as long as all convolutions of a small network.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float, low: int, high: int) -> Tensor:
        steps = (value / scale).round_()
        within = steps.clamp(low, high)
        ctx.save_for_backward(steps == within)
        return within.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


def _round(value: Tensor, *, scale: float, zero: int, low: int, high: int) -> Tensor:
    rounded: Tensor = _StraightThrough.apply(value, scale, low - zero, high - zero)  # type: ignore[no-untyped-call]
    return rounded


def _unread(steps: list[_Step], output: str) -> Iterator[list[str]]:
    """For each step, the values that it is the last to read."""
    last: Mapping[str, int] = {name: number for number, (_, inputs, _, _) in enumerate(steps) for name in inputs}
    made = {name for _, _, outputs, _ in steps for name in outputs}
    for number, (_, inputs, _, _) in enumerate(steps):
        yield [name for name in dict.fromkeys(inputs) if name in made and last[name] == number and name != output]
