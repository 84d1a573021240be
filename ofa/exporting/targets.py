"""Writes a bundle's network for a runtime: an ONNX file or a TensorRT engine, in a precision."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ofa.data import Images
from ofa.errors import ExportError
from ofa.exporting.bundle import Bundle
from ofa.exporting.engine_record import record_path
from ofa.exporting.precision import write_precision
from ofa.exporting.quantization.bundles import SIGNED, quantize_bundle
from ofa.exporting.quantization.choosing import MOST_LOSS, Quantized
from ofa.exporting.quantization.tuning import Tuning
from ofa.exporting.tensorrt import build_engine
from ofa.opsets import OPSET
from ofa.progress import Progress, silent

__all__ = ["Target", "Written", "write_target"]

Target = Literal["onnx", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """Result of writing a network for a runtime.

    Attributes:
        path: path of the file.
        difference: largest difference from PyTorch's outputs, relative to their scale; None for an engine, and for int8, whose score is
            measured instead.
        quantized: how int8 was quantized; None for other precisions.
    """

    path: Path
    difference: float | None = None
    quantized: Quantized | None = None


def write_target(
    bundle: Bundle,
    to: Target,
    path: str | os.PathLike[str] | None = None,
    *,
    check: Callable[[Path], object],
    batch: int | None = None,
    opset: int = OPSET,
    gpus: Sequence[str] = (),
    precision: str = "fp32",
    data: Images | None = None,
    most_loss: float = MOST_LOSS,
    tuning: Tuning | None = None,
    progress: Progress = silent,
) -> Written:
    """Write a bundle's network for a runtime, and verify the file; further arguments are as of ``ofa.api.export``.

    Args:
        bundle: the network's bundle.
        to: the runtime's kind of file.
        path: path of the file; None is its place in the bundle.
        check: called with the path of each file before it is written; it raises if the file must not be written.
        batch: images per call of an ONNX file; None leaves the batch size open.
        opset: ONNX opset version.
        gpus: GPUs of an engine, as of ``build_engine``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        data: images on which int8 is calibrated and judged; None for other precisions.
        most_loss: largest loss of the score (0..1) in int8.
        tuning: trains the weights of an int8 file that loses too much; None does not.
        progress: told of the work.

    Returns:
        The file, and how it was made.

    Raises:
        OfaError: options do not go together, int8 loses too much, a file cannot be written or its outputs differ, or TensorRT is missing
            or refuses the network.
    """
    _check_options(to, precision, data, tuning, batch=batch, opset=opset)
    if to == "onnx":
        target = Path(path or bundle.file(precision))
        with bundle.only_writer(target):
            check(target)
            if data is not None:
                quantized = quantize_bundle(bundle, data, target, batch=batch, most_loss=most_loss, tuning=tuning, progress=progress)
                return Written(path=target, quantized=quantized)
            return Written(path=target, difference=write_precision(bundle, target, precision, batch=batch, opset=opset))
    target = Path(path or bundle.engine_path(to, gpus, precision=precision))
    source, made = bundle.onnx_path if data is None else bundle.file(SIGNED), None
    with bundle.only_writer(target, *[source] * (data is not None)):
        check(target)
        if data is not None:
            check(source)
            made = quantize_bundle(bundle, data, source, signed=True, most_loss=most_loss, tuning=tuning, progress=progress)
        if path is None:
            target.parent.mkdir(exist_ok=True)
        with bundle.changing(target, record_path(target)):
            build_engine(source, target, flavour=to, gpus=gpus, precision=precision, batch=1, progress=progress)
    return Written(path=target, quantized=made)


def _check_options(to: Target, precision: str, data: Images | None, tuning: Tuning | None, *, batch: int | None, opset: int) -> None:
    if (precision == "int8") != (data is not None):
        raise ExportError(
            f"int8, and no other precision, needs calibration images, but precision is '{precision}' and data is "
            f"{'not ' * (data is not None)}None; give data with precision='int8'"
        )
    if tuning is not None and data is None:
        raise ExportError(
            f"tuning must have precision int8 and data, but precision is '{precision}'; give precision='int8' and data that judges it too"
        )
    if batch is not None and (to != "onnx" or batch < 1):
        raise ExportError(f"batch must be at least 1 and is for ONNX files only, but to is '{to}' and batch {batch}; leave it out")
    if opset != OPSET and (to != "onnx" or precision != "fp32"):
        raise ExportError(f"an opset is for ONNX files in fp32 only, but to is '{to}' and precision '{precision}'; leave it out")
