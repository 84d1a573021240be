"""Export of networks and blocks to ONNX files within milliseconds, and verification of the files in ONNX Runtime.

The network is traced with torch.fx, and each call is written by the handler of its operation (ofa.exporting.operators); a batch norm
after a convolution is folded into the convolution. ``torch.onnx.export`` handles any network, but takes about a second per block, and a
latency table needs hundreds of blocks: it is the fallback for networks with an operation that has no handler.

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from ofa.errors import ExportError
from ofa.exporting.graph import GraphWriter, UnknownOperationError
from ofa.exporting.torch_export import export_by_torch
from ofa.exporting.tracing import FEATURES, INPUT, LOGITS, write_calls
from ofa.files import replacing
from ofa.modes import evaluating
from ofa.opsets import IR_VERSION, NEWEST_OPSET, OLDEST_OPSET, OPSET, ir_version_for
from ofa.reading.models import parse_model, read_model_bytes
from ofa.seal import BLANK_SEAL, SEAL_KEY, seal
from ofa.telemetry import import_without_telemetry
from ofa.version import __version__

__all__ = [
    "INPUT",
    "IR_VERSION",
    "OPSET",
    "at_batch",
    "at_size",
    "batch_of",
    "check_model",
    "export",
    "float_outputs",
    "read_model",
    "session_of",
    "to_model",
    "verify_outputs",
    "write_sealed",
]

_BATCH = "batch"


@dataclass(frozen=True, kw_only=True)
class _Versions:
    """Versions of the operators (opset) and of the file format (IR)."""

    opset: int
    ir_version: int

    @classmethod
    def of(cls, opset: int, ir_version: int | None) -> _Versions:
        if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
            raise ExportError(f"an opset must be within {OLDEST_OPSET} and {NEWEST_OPSET}, but is {opset}; leave it out for {OPSET}")
        oldest = ir_version_for(opset)
        if ir_version is not None and not oldest <= ir_version <= onnx.IR_VERSION:
            raise ExportError(
                f"the IR version of a file of opset {opset} must be within {oldest} and {onnx.IR_VERSION}, but is {ir_version}; "
                "leave it out for the oldest"
            )
        return cls(opset=opset, ir_version=oldest if ir_version is None else ir_version)


def to_model(
    network: nn.Module,
    input_shape: tuple[int, ...],
    *,
    metadata: Mapping[str, str] | None = None,
    dynamic_batch: bool = False,
    opset: int = OPSET,
    ir_version: int | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a network or block in evaluation mode.

    Args:
        network: a network of the operations of ofa.exporting.operators and ofa.exporting.aten. With the extra ``export``, any operation
            of torch's own exporter is allowed, which then writes the file. Mode, weights and statistics are not changed.
        input_shape: shape of the input, [B, C, H, W] or another shape that a block takes. The input is named ``images``, the output
            ``logits`` if it is [B, n], and ``output`` if it still has pixels or tokens.
        metadata: keys and values that the file carries (``metadata_props``).
        dynamic_batch: whether B is left open in the file.
        opset: ONNX opset version; the default is the oldest that has all operators, so that old runtimes can read the file.
        ir_version: version of the file format; None is the oldest for ``opset``.

    Returns:
        The model.

    Raises:
        ExportError: an operation has no handler, the network cannot be traced or does not fit ``input_shape``, or a version is not
            supported or older than an operator of the network.
    """
    model = _build_model(network, input_shape, metadata or {}, dynamic_batch, _Versions.of(opset, ir_version))
    check_model(model)
    return model


def export(
    network: nn.Module,
    input_shape: tuple[int, int, int, int],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    dynamic_batch: bool = False,
    opset: int = OPSET,
    ir_version: int | None = None,
) -> None:
    """Write a network or block as an ONNX file atomically; arguments and errors as of ``to_model``, and FileError."""
    versions = _Versions.of(opset, ir_version)
    with replacing(path) as temporary:
        content = {**(metadata or {}), SEAL_KEY: BLANK_SEAL}
        data = _build_model(network, input_shape, content, dynamic_batch, versions).SerializeToString()
        check_model(data)  # the bytes, because serializing 30 MB twice takes longer than tracing the network
        temporary.write_bytes(data)  # ``replacing`` adds the checksum


def write_sealed(model: onnx.ModelProto, temporary: Path) -> None:
    """Write a model, derived from another model, with a checksum of its own to a temporary file of ``ofa.files.replacing``."""
    onnx.helper.set_model_props(model, {**{each.key: each.value for each in model.metadata_props}, SEAL_KEY: BLANK_SEAL})
    data = model.SerializeToString()
    check_model(data)
    temporary.write_bytes(data)
    seal(temporary)


def verify_outputs(
    network: nn.Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, int, int, int],
    *,
    generator: torch.Generator,
    tolerance: float = 1e-4,
) -> float:
    """Run the ONNX file in ONNX Runtime and compare its output with the network's in evaluation mode.

    Args:
        network: the network that the file was exported from; it is not changed.
        path: the ONNX file.
        input_shape: shape [B, C, H, W] of the random input, which is drawn from a standard normal distribution.
        generator: draws the input.
        tolerance: largest allowed difference, relative to the network's largest absolute output.

    Returns:
        The largest absolute difference, likewise relative (0 if all outputs are zero).

    Raises:
        ExportError: the file cannot be run, the shapes differ, or the difference is above ``tolerance``.
    """
    x_BCHW = torch.randn(input_shape, generator=generator)
    expected = float_outputs(network, x_BCHW).numpy()
    actual = _run(path, x_BCHW.numpy())
    if actual.shape != expected.shape:
        raise ExportError(
            f"'{path}' must return the network's shape {expected.shape}, but returns {actual.shape}; export this network again"
        )
    scale = float(np.abs(expected).max(initial=0)) or 1.0
    difference = float(np.abs(actual - expected).max(initial=0)) / scale
    if not difference <= tolerance:  # also true for NaN
        raise ExportError(
            f"'{path}' must compute what the network does within {tolerance:g} of the output's scale {scale:.4g}, "
            f"but differs by {difference:.3g}; export this network again"
        )
    return difference


def float_outputs(network: nn.Module, x_BCHW: Tensor) -> Tensor:
    """Outputs of a network in evaluation mode, computed in float32 on its own device; returned on the CPU. Its mode is restored."""
    device = next((parameter.device for parameter in network.parameters()), x_BCHW.device)
    # By default convolutions on a GPU round float32 to TF32, whose error is ten times the tolerance of files.
    with evaluating(network), torch.no_grad(), torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        outputs: Tensor = network(x_BCHW.to(device)).cpu()
    return outputs


def batch_of(path: str | os.PathLike[str]) -> int | None:
    """Batch size of a network's ONNX file; None if it is open.

    Raises:
        FileError: the file is absent or cannot be read.
        ExportError: the file is not an ONNX file of a network of images.
    """
    return read_model(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value or None


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read the ONNX file of a network; its first input is images.

    Raises:
        FileError: the file is absent or cannot be read.
        ExportError: the file is not an ONNX file of a network of images.
    """
    try:
        model = parse_model(read_model_bytes(path), f"'{path}'")
        _ = model.graph.input[0].type.tensor_type.shape.dim[0]
    except IndexError as error:
        raise ExportError(f"'{path}' must be an ONNX file of a network, but has no input; export the network again") from error
    return model


def at_size(model: onnx.ModelProto, shape: Sequence[int]) -> onnx.ModelProto:
    """A copy of an exported model whose input has another size.

    Operations of ofa's networks do not depend on the size, so that a block need not be traced again for every size.

    Args:
        model: the model.
        shape: shape of the input without the batch, such as (C, H, W).

    Returns:
        The copy.

    Raises:
        ExportError: the network does not fit the size.
    """
    resized = onnx.ModelProto()
    resized.CopyFrom(model)
    graph = resized.graph
    dims = graph.input[0].type.tensor_type.shape.dim[1:]
    if [each.dim_value for each in dims] == list(shape):
        return resized
    for each, size in zip(dims, shape, strict=True):
        each.dim_value = size
    output = _infer_output(graph, graph.output[0].name, _versions_of(model))
    del graph.output[:]
    graph.output.append(output)
    return resized


def at_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of a model with a fixed batch size; the model must have been exported with an open one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]  # inferred shapes are those of the open batch size
    return copy


# -- from nodes to a model --------------------------------------------------------------------------------------------


def _build_model(
    network: nn.Module, input_shape: tuple[int, ...], metadata: Mapping[str, str], dynamic_batch: bool, versions: _Versions
) -> onnx.ModelProto:
    shape: list[int | str] = [_BATCH if dynamic_batch else input_shape[0], *input_shape[1:]]
    try:
        model, result = _write_model(network, shape, versions)
    except UnknownOperationError as unknown:
        model = export_by_torch(network, shape, INPUT, versions.opset, unknown)
        model.ir_version = versions.ir_version
        result = model.graph.output.pop().name
    graph = model.graph
    helper.set_model_props(model, dict(metadata))
    _check_operators(graph, versions.opset)
    output = _infer_output(graph, result, versions)
    output.name = LOGITS if len(output.type.tensor_type.shape.dim) == 2 else FEATURES
    _rename_output(graph, result, output.name)
    graph.output.append(output)
    return model


def _write_model(network: nn.Module, shape: list[int | str], versions: _Versions) -> tuple[onnx.ModelProto, str]:
    """The model written by the handlers, without its output, and the name of its result."""
    model = _empty_model(type(network).__name__, versions)
    model.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape))
    return model, write_calls(GraphWriter(model.graph, versions.opset), network)


def _empty_model(name: str, versions: _Versions) -> onnx.ModelProto:
    return helper.make_model(
        onnx.GraphProto(name=name),
        opset_imports=[helper.make_opsetid("", versions.opset)],
        ir_version=versions.ir_version,
        producer_name="ofa",
        producer_version=__version__,
    )


def _versions_of(model: onnx.ModelProto) -> _Versions:
    return _Versions(opset=model.opset_import[0].version, ir_version=model.ir_version)


def _check_operators(graph: onnx.GraphProto, opset: int) -> None:
    first = _first_opsets()
    for node in graph.node:
        if first[node.op_type] > opset:
            raise ExportError(
                f"all operators of a network must be in the opset of its file, but {node.op_type} came with opset {first[node.op_type]} "
                f"and opset {opset} is asked for; ask for {first[node.op_type]} or a newer one"
            )


@lru_cache(maxsize=1)
def _first_opsets() -> dict[str, int]:
    """The first opset that has each operator."""
    first: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            first[schema.name] = min(schema.since_version, first.get(schema.name, schema.since_version))
    return first


def _infer_output(graph: onnx.GraphProto, result: str, versions: _Versions) -> onnx.ValueInfoProto:
    """Type and shape of ``result``, inferred on a model in which weights are inputs, so that they need not be copied."""
    output = onnx.ValueInfoProto()
    if result == INPUT:
        output.CopyFrom(graph.input[0])
        return output
    model = _empty_model("shapes", versions)
    model.graph.node.extend(graph.node)
    model.graph.input.extend(graph.input)
    # Integer constants are arguments such as shapes: inference needs their values.
    weights = [each for each in graph.initializer if each.data_type != TensorProto.INT64]
    model.graph.initializer.extend(each for each in graph.initializer if each.data_type == TensorProto.INT64)
    model.graph.input.extend(helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in weights)
    model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, None))
    with _as_export_error():
        output.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output[0])
    batch = output.type.tensor_type.shape.dim[:1]
    if batch and not batch[0].dim_value and graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        batch[0].dim_param = _BATCH  # after a reshape, inference gives it another name
    return output


def _rename_output(graph: onnx.GraphProto, result: str, name: str) -> None:
    """Rename the value ``result`` to the name of the file's output."""
    if result == INPUT:
        graph.node.append(helper.make_node("Identity", [INPUT], [name], name=name))
        return
    for node in graph.node:
        node.input[:] = [name if each == result else each for each in node.input]
        node.output[:] = [name if each == result else each for each in node.output]


def check_model(model: onnx.ModelProto | bytes) -> None:
    """Raise ExportError unless a model, given as such or as bytes, is well formed."""
    with _as_export_error():
        onnx.checker.check_model(model, full_check=True)


@contextmanager
def _as_export_error() -> Iterator[None]:
    try:
        yield
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"an exported network must fit the shape of its input, but ONNX reports: {reason}; pass the network's input shape"
        ) from error


def session_of(model: onnx.ModelProto | bytes) -> Any:
    """An ONNX Runtime session on this machine's CPU; errors of ONNX Runtime are passed on."""
    onnxruntime = import_without_telemetry("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: ONNX Runtime writes its warnings to stderr, past every handler
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(path: str | os.PathLike[str], x_BCHW: Any) -> Any:
    try:
        # The bytes, because ONNX Runtime cannot open every file name that the system allows.
        session = session_of(read_model_bytes(path))
        return session.run(None, {session.get_inputs()[0].name: x_BCHW})[0]
    except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
        reason = " ".join(str(error).split())
        raise ExportError(
            f"'{path}' must be an ONNX file that ONNX Runtime can run, but it reports: {reason}; export the network again"
        ) from error
