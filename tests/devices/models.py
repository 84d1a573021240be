"""Small ONNX files for these tests, made by hand so that nothing else of the project is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["conv_model", "save_conv"]


def conv_model(*, channels: int = 4, side: int | str = 8, layers: int = 1, batch: int | str = 1) -> onnx.ModelProto:
    """Pointwise convolutions, each with a ReLU; weights of 1 / channels, so that constant inputs keep their value."""
    nodes, weights, last = [], [], "images"
    for i in range(layers):
        weights.append(numpy_helper.from_array(np.full((channels, channels, 1, 1), 1 / channels, np.float32), f"weight{i}"))
        nodes.append(helper.make_node("Conv", [last, f"weight{i}"], [f"conv{i}"]))
        last = f"relu{i}"
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [last]))
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, side, side]) for name in ("images", last))
    graph = helper.make_graph(nodes, "conv", [inputs], [outputs], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_conv(path: Path, *, channels: int = 4, side: int | str = 8, layers: int = 1, batch: int | str = 1) -> Path:
    onnx.save(conv_model(channels=channels, side=side, layers=layers, batch=batch), path)
    return path
