"""Precisions: how the ONNX file of a network is written for a device, and how far its outputs may then be from the network's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from ofa.costs import FLOAT32, NumberFormat
from ofa.errors import ExportError
from ofa.exporting.bundle import Bundle
from ofa.exporting.layout import FLOAT
from ofa.exporting.network_files import TOLERANCE, put_model
from ofa.exporting.onnx import OPSET, check_model, to_model
from ofa.exporting.quantization.borders import inside_a_network
from ofa.exporting.quantization.static import Quantization, quantize
from ofa.registry import Registry

__all__ = ["PRECISIONS", "Precision", "to_half", "to_int8", "write_model", "write_precision"]


_IMAGES_OF_NOISE = 2

_INT8 = NumberFormat(weight=1, channel=5, bias=12)
"""Of a channel the scale of its weights in float32 and their zero in 8 bits; a bias and its zero in 32 bits, and its scale in float32."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A number format of weights and activations, as a device's settings name it.

    Attributes:
        tolerance: largest difference allowed between the outputs of a file and of its network, as a share of the output's scale; of one
            that is fitted to images it is of noise, which it does not know, and says only that it is of the same network.
        is_of_data: whether a file that ships must be fitted to images; one that ``rewrite`` makes is then good for measuring time alone.
        rewrite: makes a float32 model one of this precision; input and output stay float32. None where there is nothing to do.
        within: makes a rewritten model of one block what it is inside a network, where its neighbours share its border. None where that is
            the same.
        stored: bytes of a file's constants.
    """

    tolerance: float
    is_of_data: bool = False
    rewrite: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    within: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    stored: NumberFormat = FLOAT32

    @property
    def bits(self) -> int:
        """Of one weight."""
        return 8 * self.stored.weight

    def of(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A float32 model in this precision.

        Raises:
            ExportError: it cannot be rewritten.
        """
        return model if self.rewrite is None else self.rewrite(model)

    def of_block(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The float32 model of one block in this precision, as it is inside a network.

        Raises:
            ExportError: it cannot be rewritten.
        """
        written = self.of(model)
        return written if self.within is None else self.within(written)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported model that computes in float16; its input and output stay float32.

    TensorRT takes the precision from the file (strongly typed networks are all that TensorRT for RTX knows), so this is how
    an engine in half precision is made.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            constant.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(constant).astype(np.float16), constant.name))
    source, result = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = [f"{source}.half" if name == source else name for name in node.input]
        node.input[:] = [f"{result}.half" if name == result else name for name in node.input]
        node.output[:] = [f"{result}.half" if name == result else name for name in node.output]
    nodes = [
        helper.make_node("Cast", [source], [f"{source}.half"], name=f"{source}.half", to=TensorProto.FLOAT16),
        *graph.node,
        helper.make_node("Cast", [f"{result}.half"], [result], name=result, to=TensorProto.FLOAT),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    check_model(half)
    return half


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported model in int8 whose ranges are fitted to noise: as fast as one of images, and of no other use."""
    rng = np.random.default_rng(0)
    shape = [size.dim_value or 1 for size in model.graph.input[0].type.tensor_type.shape.dim]
    images = [rng.standard_normal(shape, dtype=np.float32) for _ in range(_IMAGES_OF_NOISE)]
    return quantize(model, images, Quantization())


def write_model(
    bundle: Bundle,
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    precision: str = FLOAT,
    batch: int | None = None,
    network: nn.Module | None = None,
    tolerance: float = TOLERANCE,
    of_photos: bool = True,
) -> float | None:
    """Write a model of a bundle's network, and run it before it takes its place.

    Args:
        bundle: of the network.
        model: with an open batch.
        path: the file.
        precision: of the model.
        batch: images a call; None leaves them open.
        network: that the file must compute; None where something else has judged that.
        tolerance: how far the file may be from the network, as a share of the outputs' scale.
        of_photos: whether the bundle's own file of the precision gets the one beside it that takes photos.

    Returns:
        The largest difference of the outputs, as such a share; None without ``network``.

    Raises:
        ExportError: the file computes something else.
        FileError: it cannot be written.
    """
    companion = bundle.photo_file(precision) if of_photos and bundle.is_own(path, precision) else None
    with bundle.changing(path, *([] if companion is None else [companion])):
        return put_model(
            bundle,
            model,
            Path(path),
            companion=companion,
            batch=batch,
            network=network,
            tolerance=tolerance,
            generator=torch.Generator().manual_seed(0),
        )


def write_precision(
    bundle: Bundle, path: str | os.PathLike[str], precision: str = FLOAT, *, batch: int | None = None, opset: int = OPSET
) -> float:
    """Export a bundle's network anew in a precision, and run the file against PyTorch before it takes its place.

    Args:
        bundle: whose network.
        path: the file.
        precision: one that needs no images.
        batch: images a call; None leaves them open.
        opset: version of the operators.

    Returns:
        The largest difference of the outputs, as a share of their scale.

    Raises:
        WeightsError: the weights are damaged.
        ExportError: the file cannot be written in that precision, or computes something else.
        FileError: it cannot be written.
    """
    chosen = PRECISIONS.get(precision)
    with bundle.only_writer(path):
        network = bundle.network()
        model = chosen.of(to_model(network, bundle.input_shape, metadata=bundle.metadata, dynamic_batch=True, opset=opset))
        return write_model(bundle, model, path, precision=precision, batch=batch, network=network, tolerance=chosen.tolerance) or 0.0


PRECISIONS: Registry[Precision] = Registry(
    "precision",
    group="ofa.precisions",
    error=ExportError,
    entries={
        "fp32": Precision(tolerance=TOLERANCE),
        "fp16": Precision(tolerance=0.02, rewrite=to_half, stored=NumberFormat(weight=2, bias=2, other=2)),
        "int8": Precision(tolerance=1.0, is_of_data=True, rewrite=to_int8, within=inside_a_network, stored=_INT8),
    },
    valid=lambda entry: isinstance(entry, Precision),
    must_be="an ofa.exporting.precision.Precision",
)
"""By the name that a device's settings have for it."""
