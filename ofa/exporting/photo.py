"""ONNX files that take a photo: crop, resize, normalization and the final activation are operators of the file.

An application with such a file needs only an image decoder. The resize is two matrix products; the matrices are computed from the size of
the photo. Every runtime has matrix products, in any opset, whereas the operator Resize has antialiasing only since opset 18.

Shapes: H W of a photo, h w of the network's input, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from ofa.data import ImageData
from ofa.data.batches import make_batch
from ofa.errors import ExportError
from ofa.exporting.layout import Signature
from ofa.exporting.onnx import at_batch, check_model, session_of

__all__ = ["PHOTO", "PROBABILITIES", "check_photo", "of_a_photo", "prepared"]

PHOTO, PROBABILITIES = "photo", "probabilities"
"""Names of the input, uint8 [H, W, C] of any size, and of the output, float32 [K]."""

_ACTIVATIONS = {"softmax": "Softmax", "sigmoid": "Sigmoid", "": "Identity"}
"""The operator of each activation."""
_PREPARE, _ANSWER = "of_photo", "of_outputs"
"""Prefixes of the names of the operators before and after the network."""
_TRIED = ((37, 53), (96, 64), (20, 20))
"""Heights and widths of the photos that a file is checked with: larger and smaller than inputs, upright, wide and square."""
_TOLERANCE = 1e-3
"""Largest difference of a normalized pixel; one of a photo's 256 levels is some 0.015."""


def of_a_photo(model: onnx.ModelProto, signature: Signature) -> onnx.ModelProto:
    """A copy of a network's model that takes one upright photo and returns probabilities.

    Args:
        model: a model with one input, normalized images [B, C, h, w], and one output [B, K], in any precision.
        signature: the network's preprocessing and activation; photos have levels 0..255.

    Returns:
        The model.

    Raises:
        ExportError: the activation is unknown, or the model has other inputs or outputs.
    """
    if signature.activation not in _ACTIVATIONS:
        known = ", ".join(name or "nothing" for name in _ACTIVATIONS)
        raise ExportError(
            f"the activation of a task must be one of {known}, but the task '{signature.task}' has '{signature.activation}'; change it"
        )
    copy = at_batch(model, 1)
    graph = copy.graph
    shape = [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim]
    if len(graph.input) != 1 or len(graph.output) != 1 or len(shape) != 4:
        raise ExportError(
            f"a network of photos must have one input [1, C, h, w] and one output, but '{graph.name}' has {len(graph.input)} inputs, the "
            f"first of shape {shape}, and {len(graph.output)} outputs; export another network"
        )
    images, outputs = graph.input[0].name, graph.output[0].name
    front = _prepare(images, shape, signature)
    back = _Nodes(_ANSWER)
    axis: dict[str, Any] = {"axis": -1} if signature.activation == "softmax" else {}
    answer = back.add(_ACTIVATIONS[signature.activation], outputs, **axis)
    back.add("Reshape", answer, back.sizes(-1), output=PROBABILITIES)
    nodes = [*front.nodes, *graph.node, *back.nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*front.constants, *back.constants])
    graph.input.append(_photo_input(shape[1]))
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [len(signature.class_names)]))
    check_model(copy)
    return copy


def prepared(photo_HWC: Tensor, size: tuple[int, int], signature: Signature) -> Tensor:
    """The network's input for a photo, computed as in training for images in memory.

    Args:
        photo_HWC: an upright photo, uint8 [H, W, C].
        size: h and w.
        signature: the network's preprocessing.

    Returns:
        float32 [1, C, h, w].
    """
    data = ImageData(
        images=photo_HWC.permute(2, 0, 1).unsqueeze(0).contiguous(),
        labels=torch.zeros(1, dtype=torch.int64),
        class_names=signature.class_names,
        mean=signature.mean,
        std=signature.std,
        known_rule=signature.rule,
        least_classes=1,
    )
    x_1Chw, _ = make_batch(data, torch.tensor([0]), resolution=size)
    return x_1Chw.contiguous()


def check_photo(model: onnx.ModelProto, signature: Signature, *, generator: torch.Generator) -> float:
    """Compare the preprocessing of a model of ``of_a_photo`` with PyTorch's, and run the whole model once.

    Args:
        model: the model.
        signature: the signature that the model was made with.
        generator: draws the random photos.

    Returns:
        The largest difference of a normalized pixel.

    Raises:
        ExportError: the difference is too large, or the output has another shape or is not finite.
    """
    before, images = _until_network(model)
    session, channels, largest = session_of(before), len(signature.mean), 0.0
    for height, width in _TRIED:
        # Coarse noise, because antialiasing averages fine noise to a uniform grey.
        coarse = torch.randint(0, 256, (5, 7, channels), dtype=torch.uint8, generator=generator)
        photo_HWC = coarse.repeat_interleave(height // 5 + 1, 0)[:height].repeat_interleave(width // 7 + 1, 1)[:, :width].contiguous()
        x_1Chw = session.run([images], {PHOTO: photo_HWC.numpy()})[0]
        expected = prepared(photo_HWC, (x_1Chw.shape[2], x_1Chw.shape[3]), signature).numpy()
        largest = max(largest, float(np.abs(x_1Chw - expected).max()))
    answer_K = session_of(model).run(None, {PHOTO: photo_HWC.numpy()})[0]
    if not largest <= _TOLERANCE or answer_K.shape != (len(signature.class_names),) or not np.isfinite(answer_K).all():
        raise ExportError(
            f"a file of photos must prepare its input as PyTorch does within {_TOLERANCE:g} and return {len(signature.class_names)} finite "
            f"numbers, but the input differs by {largest:.3g} and the output is of shape {list(answer_K.shape)}; export the network again"
        )
    return largest


# -- the operators ----------------------------------------------------------------------------------------------------


def _photo_input(channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(PHOTO, TensorProto.UINT8, ["height", "width", channels])


def _until_network(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The preprocessing part of a model of photos, and the name of its output."""
    own = [node for node in model.graph.node if node.name.startswith(f"{_PREPARE}.")]
    images = own[-1].output[0]
    read = {name for node in own for name in node.input}
    constants = [each for each in model.graph.initializer if each.name in read]
    result = helper.make_tensor_value_info(images, TensorProto.FLOAT, None)
    graph = helper.make_graph(own, _PREPARE, model.graph.input, [result], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version), images


class _Nodes:
    """Operators and constants to be put into a graph; their names have a common prefix."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append an operator; returns the name of its result."""
        result = output or f"{self._prefix}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], name=f"{self._prefix}.{kind}.{len(self.nodes)}", **attributes))
        return result

    def constant(self, value: Any, dtype: Any) -> str:
        name = f"{self._prefix}.constant.{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def sizes(self, *values: int) -> str:
        """A constant list of integers."""
        return self.constant(values, np.int64)

    def cast(self, name: str, to: int) -> str:
        return self.add("Cast", name, to=to)


def _prepare(images: str, shape: Sequence[int], signature: Signature) -> _Nodes:
    """Operators from the photo [H, W, C] to the network's input ``images`` of ``shape``."""
    nodes = _Nodes(_PREPARE)
    _, channels, height, width = shape
    whole = nodes.add("Shape", PHOTO)
    rows, columns = (nodes.add("Gather", whole, nodes.constant([axis], np.int64)) for axis in (0, 1))
    kept_rows, kept_columns = _fitting(nodes, rows, columns, height, width) if signature.rule.fit == "crop" else (rows, columns)
    two = nodes.sizes(2)
    starts = [nodes.add("Div", nodes.add("Sub", all_, kept), two) for all_, kept in ((rows, kept_rows), (columns, kept_columns))]
    ends = [nodes.add("Add", start, kept) for start, kept in zip(starts, (kept_rows, kept_columns), strict=True)]
    x = nodes.add("Slice", PHOTO, nodes.add("Concat", *starts, axis=0), nodes.add("Concat", *ends, axis=0), nodes.sizes(0, 1))
    x = nodes.cast(x, TensorProto.FLOAT)
    # Rows are resized first, as [h, W * C], so that the transpose moves fewer values.
    x = nodes.add("Reshape", x, nodes.add("Concat", kept_rows, nodes.sizes(-1), axis=0))
    x = nodes.add("MatMul", _weights(nodes, kept_rows, height), x)
    x = nodes.add("Reshape", x, nodes.add("Concat", nodes.sizes(height), kept_columns, nodes.sizes(channels), axis=0))
    x = nodes.add("Transpose", x, perm=[2, 0, 1])
    x = nodes.add("MatMul", x, nodes.add("Transpose", _weights(nodes, kept_columns, width), perm=[1, 0]))
    x = nodes.add("Reshape", x, nodes.sizes(1, channels, height, width))
    deviation = np.reshape(np.asarray(signature.std, dtype=np.float64), (1, channels, 1, 1))
    shift = np.reshape(np.asarray(signature.mean, dtype=np.float64), (1, channels, 1, 1)) / deviation
    x = nodes.add("Mul", x, nodes.constant(1 / (255 * deviation), np.float32))
    nodes.add("Sub", x, nodes.constant(shift, np.float32), output=images)
    return nodes


def _fitting(nodes: _Nodes, rows: str, columns: str, height: int, width: int) -> tuple[str, str]:
    """Rows and columns of the largest part with the input's aspect ratio, as computed by ``ofa.data.reading.fitting_part``."""

    def kept(other: str, own: str, share: tuple[int, int]) -> str:
        """The other side times a ratio, rounded half to even as in Python, and clipped to 1 pixel .. the own side."""
        product = nodes.cast(nodes.add("Mul", other, nodes.sizes(share[0])), TensorProto.DOUBLE)
        rounded = nodes.add("Round", nodes.add("Div", product, nodes.constant([share[1]], np.float64)))
        kept = nodes.add("Max", rounded, nodes.constant([1], np.float64))
        return nodes.cast(nodes.add("Min", kept, nodes.cast(own, TensorProto.DOUBLE)), TensorProto.INT64)

    return kept(columns, rows, (height, width)), kept(rows, columns, (width, height))


def _weights(nodes: _Nodes, size: str, wanted: int) -> str:
    """The matrix [wanted, size] of an antialiased bilinear resize: triangle filters, normalized to sum 1, centred on output pixels."""
    count = nodes.cast(size, TensorProto.FLOAT)
    scale = nodes.add("Div", count, nodes.constant([wanted], np.float32))
    centres = nodes.add("Mul", scale, nodes.constant(np.arange(wanted)[:, None] + 0.5, np.float32))
    scalar = nodes.add("Reshape", size, nodes.constant([], np.int64))
    places = nodes.cast(nodes.add("Range", nodes.constant(0, np.int64), scalar, nodes.constant(1, np.int64)), TensorProto.FLOAT)
    places = nodes.add("Add", places, nodes.constant(0.5, np.float32))
    reach = nodes.add("Max", scale, nodes.constant([1], np.float32))
    distance = nodes.add("Div", nodes.add("Abs", nodes.add("Sub", places, centres)), reach)
    triangle = nodes.add("Relu", nodes.add("Sub", nodes.constant(1, np.float32), distance))
    ones = nodes.add("Expand", nodes.constant([[1]], np.float32), nodes.add("Concat", size, nodes.sizes(1), axis=0))
    return nodes.add("Div", triangle, nodes.add("MatMul", triangle, ones))
