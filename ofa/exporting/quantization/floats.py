"""Layers of a quantized network put back to float32, without fitting anything anew."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx

__all__ = ["LAYERS", "in_floats", "layers_of"]

LAYERS = ("Conv", "Gemm", "MatMul")
"""Kinds of operators that multiply with weights or values: what quantization makes faster."""


def layers_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of a model's layers, in their order."""
    return tuple(node.name for node in model.graph.node if node.op_type in LAYERS)


def in_floats(quantized: onnx.ModelProto, model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of a quantized model in which some layers compute with the float32 values and weights of the model that it was made of.

    Args:
        quantized: with explicit QuantizeLinear and DequantizeLinear.
        model: in float32, with the same names of operators and constants.
        names: of layers.
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
    """The value that a DequantizeLinear gives back in steps, as it was."""
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
