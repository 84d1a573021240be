"""Puts layers of a quantized network back to float32, without a new calibration."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx

__all__ = ["LAYERS", "in_floats", "layers_of"]

LAYERS = ("Conv", "Gemm", "MatMul")
"""Types of the operators that quantization makes faster: products with weights or values."""


def layers_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of a model's layers, in order."""
    return tuple(node.name for node in model.graph.node if node.op_type in LAYERS)


def in_floats(quantized: onnx.ModelProto, model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of a quantized model in which some layers compute in float32, with the original weights and unrounded inputs.

    Args:
        quantized: the quantized model, with explicit QuantizeLinear and DequantizeLinear.
        model: the float32 model that it was made from, with the same names of operators and constants.
        names: names of the layers.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(quantized)
    graph = copy.graph
    makers = {name: node for node in graph.node for name in node.output}
    originals = {node.name: node for node in model.graph.node}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    there = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.name in names and node.name in originals:
            for place, given in enumerate(originals[node.name].input):
                if given in weights:
                    node.input[place] = f"{given}.float32"
                    if node.input[place] not in there:
                        there.add(node.input[place])
                        added = graph.initializer.add()
                        added.CopyFrom(weights[given])
                        added.name = node.input[place]
                elif given:
                    node.input[place] = _before_rounding(node.input[place], makers)
    _drop_unread(graph)
    return copy


def _before_rounding(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    """The value before QuantizeLinear and DequantizeLinear."""
    maker = makers.get(name)
    if maker is None or maker.op_type != "DequantizeLinear":
        return name
    rounded = makers.get(maker.input[0])
    return name if rounded is None or rounded.op_type != "QuantizeLinear" else rounded.input[0]


def _drop_unread(graph: onnx.GraphProto) -> None:
    while unread := list(_unread(graph)):
        for node in unread:
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _unread(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    return (node for node in graph.node if read.isdisjoint(node.output))
