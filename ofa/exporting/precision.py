"""Precisions (fp32, fp16, int8): how an ONNX file is rewritten, and how far its outputs may then differ from the network's."""

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
"""Bytes: a channel has a float32 scale and an 8-bit zero point of its weights; a bias has 32 bits, a 32-bit zero and a float32 scale."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A number format of weights and activations, as named in a device's settings.

    Attributes:
        tolerance: largest allowed difference between the outputs of a file and of its network, relative to the outputs' scale. If
            ``is_of_data``, it is compared on noise, for which the file was not calibrated, and only shows that both are the same network.
        is_of_data: whether a file for deployment must be calibrated on images; the result of ``rewrite`` then only serves to measure time.
        rewrite: converts a float32 model to this precision; input and output stay float32. None if nothing is to be done.
        within: converts a rewritten model of one block to its form inside a network, where neighbours share the quantization at its
            border. None if the forms are equal.
        stored: bytes of a file's constants.
    """

    tolerance: float
    is_of_data: bool = False
    rewrite: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    within: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    stored: NumberFormat = FLOAT32

    @property
    def bits(self) -> int:
        """Bits of one weight."""
        return 8 * self.stored.weight

    def of(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Convert a float32 model to this precision.

        Raises:
            ExportError: the model cannot be converted.
        """
        return model if self.rewrite is None else self.rewrite(model)

    def of_block(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Convert the float32 model of one block to its form in this precision inside a network.

        Raises:
            ExportError: the model cannot be converted.
        """
        written = self.of(model)
        return written if self.within is None else self.within(written)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported model that computes in float16; its input and output stay float32.

    TensorRT takes the precision from the file (TensorRT for RTX has only strongly typed networks), so engines in half precision are built
    from such a model.
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
    """A copy of an exported model in int8, calibrated on noise: as fast as a model calibrated on images, but only good to measure time."""
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
    """Write a model of a bundle's network; the file is verified before it is put in place.

    Args:
        bundle: the network's bundle.
        model: the model, with open batch size.
        path: path of the file.
        precision: precision of the model.
        batch: images per call; None leaves the batch size open.
        network: the network whose outputs the file must reproduce; None skips the comparison, if the model was checked otherwise.
        tolerance: largest difference between file and network, relative to the outputs' scale.
        of_photos: whether the companion that takes photos is written too, if ``path`` is the bundle's own file of the precision.

    Returns:
        The largest relative difference of the outputs; None without ``network``.

    Raises:
        ExportError: the file's outputs differ.
        FileError: the file cannot be written.
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
    """Export a bundle's network in a precision; the file is compared with PyTorch before it is put in place.

    Args:
        bundle: the network's bundle.
        path: path of the file.
        precision: a precision that needs no images for calibration.
        batch: images per call; None leaves the batch size open.
        opset: ONNX opset version.

    Returns:
        The largest difference of the outputs, relative to their scale.

    Raises:
        WeightsError: the weights are damaged.
        ExportError: the file cannot be written in that precision, or its outputs differ.
        FileError: the file cannot be written.
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
"""The precisions, by their names in a device's settings."""
