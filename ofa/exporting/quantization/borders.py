"""Gives a quantized block's file integer inputs and outputs, as the block has inside a network.

In a network, two neighbouring blocks share one QuantizeLinear, fused into the last operation of the first, and one DequantizeLinear, fused
into the first operation of the second. A block's file with float32 inputs and outputs has both by itself, so that a sum of blocks would
count each border twice.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["inside_a_network"]


def inside_a_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a quantized block's model with integer input and output.

    An input or output of one vector per image, such as logits, stays float.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    _open_input(graph, kinds)
    _open_output(graph, kinds)
    # Inferred types of the input and output are no longer valid.
    borders = {value.name for value in (*graph.input, *graph.output)}
    kept = [value for value in graph.value_info if value.name not in borders]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return copy


_OF_VECTORS = 2
"""Number of dimensions of logits and of features of a whole image: so few values that their type does not matter for time."""


def _open_input(graph: onnx.GraphProto, kinds: dict[str, int]) -> None:
    given = graph.input[0]
    readers = [node for node in graph.node if given.name in node.input]
    ranges = {tuple(node.input[1:]) if node.op_type == "QuantizeLinear" and len(node.input) > 2 else () for node in readers}
    if len(ranges) != 1 or () in ranges:
        if len(given.type.tensor_type.shape.dim) > _OF_VECTORS:
            _dequantize_input(graph, readers)
        return
    for node in readers:
        for other in graph.node:
            other.input[:] = [given.name if name == node.output[0] else name for name in other.input]
        graph.node.remove(node)
    given.type.tensor_type.elem_type = kinds[readers[0].input[2]]


def _open_output(graph: onnx.GraphProto, kinds: dict[str, int]) -> None:
    result = graph.output[0]
    last = next(node for node in graph.node if result.name in node.output)
    quantized = last.input[0] if last.op_type == "DequantizeLinear" and len(last.input) > 2 else None
    maker = next((node for node in graph.node if quantized is not None and quantized in node.output), None)
    if len(result.type.tensor_type.shape.dim) == _OF_VECTORS or any(result.name in node.input for node in graph.node):
        return
    if maker is None:
        _quantize_output(graph, last)
        return
    kind = kinds[last.input[2]]
    graph.node.remove(last)
    for node in graph.node:
        node.input[:] = [result.name if name == quantized else name for name in node.input]
    maker.output[0] = result.name
    result.type.tensor_type.elem_type = kind


def _dequantize_input(graph: onnx.GraphProto, readers: list[onnx.NodeProto]) -> None:
    """Give a block that begins with a pooling or a layer norm an integer input, as the block before it outputs."""
    given = graph.input[0]
    scale, zero = _range_of(graph, given.name)
    floats = f"{given.name}.floats"
    for node in readers:
        node.input[:] = [floats if name == given.name else name for name in node.input]
    graph.node.insert(0, helper.make_node("DequantizeLinear", [given.name, scale, zero], [floats], name=f"{given.name}.dequantize"))
    given.type.tensor_type.elem_type = TensorProto.UINT8


def _quantize_output(graph: onnx.GraphProto, last: onnx.NodeProto) -> None:
    """Quantize a float output, such as an activation's, as the next block would."""
    result = graph.output[0]
    scale, zero = _range_of(graph, result.name)
    floats = f"{result.name}.floats"
    last.output[:] = [floats if name == result.name else name for name in last.output]
    graph.node.append(helper.make_node("QuantizeLinear", [floats, scale, zero], [result.name], name=f"{result.name}.quantize"))
    result.type.tensor_type.elem_type = TensorProto.UINT8


def _range_of(graph: onnx.GraphProto, name: str) -> tuple[str, str]:
    """A scale and a zero point for a value: the first ones of the graph's activations, since they do not affect the time."""
    by_name = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and by_name[node.input[2]].data_type == TensorProto.UINT8:
            return node.input[1], node.input[2]
    scale, zero = f"{name}.scale", f"{name}.zero"
    graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), zero))
    return scale, zero
