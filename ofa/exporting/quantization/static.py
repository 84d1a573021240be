"""Post-training static quantization of an exported network by libraries, with explicit QuantizeLinear and DequantizeLinear operators.

Weights become symmetric int8, with a scale for each output channel or one for the layer. Activations become uint8, or symmetric int8, with
one scale each, calibrated on images (Jacob et al., CVPR 2018; Nagel et al., "A White Paper on Neural Network Quantization", 2021).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from ofa.errors import ExportError, MissingExtraError, OfaError
from ofa.files import temporary_folder
from ofa.reasons import reason_of
from ofa.telemetry import import_without_telemetry

__all__ = ["Images", "Quantization", "quantize"]

Images = Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
"""Inputs of a network, [B, C, H, W] each."""

_MOST_AT_ONCE = 16
_MOST_IN_HISTOGRAMS = 32
"""The most images for histograms: the library keeps every activation of all of them at once."""

_QUANTIZED = frozenset({"Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "MaxPool", "Relu", "Clip"})
"""Types of operators that processors and accelerators compute in integers; parts of norms and activations are not among them."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Settings of a quantization.

    Attributes:
        library: the library that quantizes; ``nncf`` is an extra.
        per_channel: whether each output channel of a layer has a scale of its own.
        signed: whether activations are int8 with zero point 0, as TensorRT requires, rather than uint8 with any zero point.
        clipping: calibration of an activation's range: ``minmax`` covers all values; with ``onnxruntime``, ``percentile`` covers all but 1
            in 1000, and ``entropy`` minimizes the loss of information.
        reduce_range: whether weights have 7 bits, so that sums of two products fit into 16 bits on a processor without VNNI.
        bias_correction: with ``nncf``, whether biases compensate the mean error of each layer, measured on inputs from the float network
            (``fast``) or from the preceding quantized layers (``full``).
    """

    library: Literal["onnxruntime", "nncf"] = "onnxruntime"
    per_channel: bool = True
    signed: bool = False
    clipping: Literal["minmax", "percentile", "entropy"] = "minmax"
    reduce_range: bool = False
    bias_correction: Literal["none", "fast", "full"] = "none"

    def __str__(self) -> str:
        parts = [self.library, "a scale a channel" if self.per_channel else "a scale a layer", "int8" if self.signed else "uint8"]
        parts += [self.clipping] * (self.library == "onnxruntime") + ["7 bits"] * self.reduce_range
        parts += [f"{self.bias_correction} bias correction"] * (self.library == "nncf")
        return ", ".join(parts)


def quantize(model: onnx.ModelProto, images: Images, how: Quantization, *, floats: Collection[str] = ()) -> onnx.ModelProto:
    """A quantized copy of a float32 model; its input and output stay float32.

    Args:
        model: a model of ``ofa.exporting.onnx``, with one input. Pass the result of ``repair.repaired``, so that no bias overflows.
        images: inputs for calibration, with the model's batch size if it is fixed.
        how: settings of the quantization.
        floats: names of operators that stay in float32.

    Returns:
        The quantized model.

    Raises:
        ExportError: there is no image, images do not fit the model, or the library is not installed or fails.
    """
    _check(model, images)
    try:
        return (_by_onnxruntime if how.library == "onnxruntime" else _by_nncf)(model, images, how, floats)
    except OfaError:
        raise
    except Exception as error:  # errors of both libraries have no common base but Exception
        raise ExportError(
            f"a network must be quantizable by {how.library}, but it reports: {reason_of(error)}; leave it in float32, or name "
            "operators to leave in float32"
        ) from error


def _check(model: onnx.ModelProto, images: Images) -> None:
    if not images:
        raise ExportError("calibration of activations needs at least 1 image, but there is none; give some of the data")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    wanted = [size.dim_value or None for size in dims]
    for image in images:
        if len(image.shape) != len(wanted) or any(size not in (None, given) for size, given in zip(wanted, image.shape, strict=True)):
            sizes = [size or "any" for size in wanted]
            raise ExportError(
                f"calibration images must be inputs of the network, of shape {sizes}, but one is {list(image.shape)}; "
                "prepare them as for the network"
            )


# -- ONNX Runtime ------------------------------------------------------------------------------------------------------


class _Reader:
    """Data reader for onnxruntime's calibration."""

    def __init__(self, name: str, images: Images) -> None:
        self._images = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._images, None)


def _by_onnxruntime(model: onnx.ModelProto, images: Images, how: Quantization, floats: Collection[str]) -> onnx.ModelProto:
    library = import_without_telemetry("onnxruntime.quantization")
    if how.clipping != "minmax":
        images = images[:: -(-len(images) // _MOST_IN_HISTOGRAMS)]
    methods = {"minmax": library.CalibrationMethod.MinMax, "percentile": library.CalibrationMethod.Percentile}
    # The library's calibration prints to stdout.
    with temporary_folder("quantize") as folder, redirect_stdout(StringIO()):
        path = Path(folder) / "quantized.onnx"
        library.quantize_static(
            _marked(model),
            path,
            _Reader(model.graph.input[0].name, images),
            quant_format=library.QuantFormat.QDQ,
            per_channel=how.per_channel,
            reduce_range=how.reduce_range,
            activation_type=library.QuantType.QInt8 if how.signed else library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            op_types_to_quantize=sorted(_QUANTIZED),
            nodes_to_exclude=sorted({*floats, *_of_constants(model)}),
            calibrate_method=methods.get(how.clipping, library.CalibrationMethod.Entropy),
            extra_options={
                "ActivationSymmetric": how.signed,
                "WeightSymmetric": True,
                "QuantizeBias": not how.signed,  # TensorRT requires float biases
                "QDQKeepRemovableActivations": True,  # otherwise a layer that is put back to float would lose its ReLU
                "CalibMaxIntermediateOutputs": _at_once(len(images)),
                "CalibPercentile": 99.9,
            },
        )
        quantized = onnx.load(path)
    onnx.helper.set_model_props(quantized, {each.key: each.value for each in model.metadata_props})
    return quantized


def _at_once(images: int) -> int:
    """How many images' activations are held at once. It must not divide the number of images, or the library fails at the end."""
    return next(count for count in range(_MOST_AT_ONCE, _MOST_AT_ONCE + images + 2) if images % count)


def _of_constants(model: onnx.ModelProto) -> set[str]:
    """Names of sums and products with a constant: parts of norms or activations, whose values have a wide range."""
    constants = {tensor.name for tensor in model.graph.initializer}
    elementwise = (node for node in model.graph.node if node.op_type in ("Add", "Mul"))
    return {node.name for node in elementwise if not constants.isdisjoint(node.input)}


def _marked(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy marked as preprocessed for the library: our exporter has done so, and without the mark it warns in the root logger."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    mark = marked.metadata_props.add()
    mark.key, mark.value = "onnx.quant.pre_process", "onnxruntime.quant"
    return marked


# -- NNCF --------------------------------------------------------------------------------------------------------------


def _by_nncf(model: onnx.ModelProto, images: Images, how: Quantization, floats: Collection[str]) -> onnx.ModelProto:
    if how.signed:
        raise ExportError(
            "nncf chooses the sign of activations itself, but signed is True; quantize by onnxruntime for runtimes that need signed int8"
        )
    library = _nncf()
    advanced = library.quantization.advanced_parameters
    name = model.graph.input[0].name
    with _quiet("nncf"):
        quantized: onnx.ModelProto = library.quantize(
            model,
            library.Dataset(list(images), lambda image: {name: image}),
            preset=library.QuantizationPreset.MIXED,
            fast_bias_correction=how.bias_correction != "full",
            subset_size=len(images),
            ignored_scope=library.IgnoredScope(names=sorted(floats), validate=False),
            advanced_parameters=library.AdvancedQuantizationParameters(
                disable_bias_correction=how.bias_correction == "none",
                overflow_fix=advanced.OverflowFix.ENABLE if how.reduce_range else advanced.OverflowFix.DISABLE,
                weights_quantization_params=advanced.QuantizationParameters(
                    per_channel=how.per_channel, mode=advanced.QuantizationMode.SYMMETRIC
                ),
            ),
        )
    return quantized


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Context without a library's own reports: its logger (errors only), stdout, and what IPython displays."""
    logger = logging.getLogger(name)
    level = logger.level
    notebook = sys.modules.get("IPython.utils.capture")  # which IPython has loaded wherever it runs
    with ExitStack() as silenced:
        silenced.callback(logger.setLevel, level)
        logger.setLevel(logging.ERROR)
        silenced.enter_context(redirect_stdout(StringIO()))
        if notebook is not None:
            silenced.enter_context(notebook.capture_output(stderr=False))
        yield


def _nncf() -> Any:
    try:
        return import_without_telemetry("nncf")
    except ModuleNotFoundError as error:
        raise MissingExtraError("quantization by nncf", "nncf") from error
