"""Repairs dead channels before quantization: channels with one value for all images, such as after a batch norm of vanishing variance.

Such a channel has weights near zero and a bias of ordinary size. The scale of its weights is then so small that its bias, in units of
the product of the scales of weights and inputs, overflows 32 bits. MobileNetV3 lost 15 points of accuracy that way (onnxruntime issue
11415).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ofa.exporting.onnx import session_of

__all__ = ["repaired"]

_CONSTANT = 1e-3
"""A channel counts as constant if its values differ by at most this share of its mean: a fourth of an 8-bit step."""

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass
class _Range:
    """Least and largest values of each channel of a layer's output, [C] each."""

    least: Floats
    most: Floats

    def take(self, values: Floats) -> None:
        """Extend the ranges by the output [B, C, ...] for one more input."""
        axes = (0, *range(2, values.ndim))
        self.least = np.minimum(self.least, values.min(axis=axes))
        self.most = np.maximum(self.most, values.max(axis=axes))


def repaired(model: onnx.ModelProto, images: Sequence[Floats]) -> onnx.ModelProto:
    """A copy of a float32 model in which channels that are constant over all images have zero weights and the constant as their bias.

    Args:
        model: a model whose convolutions and linear layers have constant weights and biases.
        images: inputs, [B, C, H, W] each.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    readers = Counter(name for node in copy.graph.node for name in node.input)
    own = {name: tensor for name, tensor in constants.items() if readers[name] == 1}  # constants shared by several layers are not changed
    layers = [node for node in copy.graph.node if _has_channels(node, own)]
    for node, found in zip(layers, _ranges(copy, layers, images), strict=True):
        middle = (found.least + found.most) / 2
        dead = (found.most - found.least <= _CONSTANT * np.abs(middle)) & (middle != 0)
        if dead.any():
            weight, bias = (numpy_helper.to_array(constants[name]).copy() for name in node.input[1:3])
            np.moveaxis(weight, 0 if _of_rows(node) else -1, 0)[dead] = 0
            bias[dead] = middle[dead]
            for name, array in zip(node.input[1:3], (weight, bias), strict=True):
                constants[name].CopyFrom(numpy_helper.from_array(array, name))
    return copy


def _has_channels(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node is a layer with a weight and a bias of its own."""
    return node.op_type in ("Conv", "Gemm") and len(node.input) == 3 and all(name in constants for name in node.input[1:])


def _of_rows(node: onnx.NodeProto) -> bool:
    """Whether the first dimension of a layer's weight is its output channels."""
    return node.op_type == "Conv" or any(each.name == "transB" and each.i for each in node.attribute)


def _ranges(model: onnx.ModelProto, layers: Sequence[onnx.NodeProto], images: Sequence[Floats]) -> Iterator[_Range]:
    if not layers:
        return iter(())
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [node.output[0] for node in layers]
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = session_of(shown)
    ranges: list[_Range] = []
    for image in images:
        outputs = session.run(names, {model.graph.input[0].name: image})
        if not ranges:
            ranges = [_Range(*np.full((2, values.shape[1]), [[np.inf], [-np.inf]], dtype=np.float32)) for values in outputs]
        for found, values in zip(ranges, outputs, strict=True):
            found.take(values)
    return iter(ranges)
