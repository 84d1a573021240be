"""Torch's own ONNX exporter, for networks with an operation that no handler of this project writes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.util import find_spec

import onnx
import torch
from onnx import version_converter
from torch import nn

from ofa.errors import ExportError
from ofa.exporting.graph import UnknownOperationError
from ofa.modes import evaluating

__all__ = ["export_by_torch"]

_OLDEST = 18
"""Oldest opset that torch's exporter writes; files of older opsets are converted from it."""
_EXAMPLES = 2
"""Batch size of the example input if the batch size is open: torch would treat a batch size of 1 as a constant."""


def export_by_torch(
    network: nn.Module, shape: Sequence[int | str], name: str, opset: int, unknown: UnknownOperationError
) -> onnx.ModelProto:
    """Export a network by ``torch.onnx.export``; the producer of the model is ``pytorch``.

    Args:
        network: the network; it is run in evaluation mode.
        shape: shape [B, ...] of the input; a word for B leaves the batch size open.
        name: name of the input.
        opset: ONNX opset version.
        unknown: the error of the project's own writer.

    Returns:
        The model.

    Raises:
        ExportError: the extra ``export`` is not installed, torch cannot export the network, or an operator does not exist in the opset.
    """
    if find_spec("onnxscript") is None:
        raise ExportError(f"{unknown}, or install torch's exporter, which supports more: pip install 'ofa-nas[export]'") from unknown
    batch, *sizes = shape
    example = torch.zeros([_EXAMPLES if isinstance(batch, str) else batch, *map(int, sizes)], device=_device(network))
    dynamic = ({0: torch.export.Dim(batch)},) if isinstance(batch, str) else None
    try:
        with evaluating(network), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=max(opset, _OLDEST),
                input_names=[name],
                dynamic_shapes=dynamic,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # errors of torch's exporter have no common base but Exception
        raise ExportError(f"{unknown}; torch's own exporter cannot write it either: {_first_line(error)}") from error
    return _without_notes(_converted(model, opset))


def _device(network: nn.Module) -> torch.device:
    return next((each.device for each in itertools.chain(network.parameters(), network.buffers())), torch.device("cpu"))


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if opset >= _OLDEST:
        return model
    try:
        older = version_converter.convert_version(model, opset)
        for node in older.graph.node:
            _drop_newer_attributes(node, opset)
        onnx.checker.check_model(older)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"a model of torch's own exporter must be convertible to opset {opset}, but ONNX reports: "
            f"{_first_line(error)}; ask for opset {_OLDEST} or a newer one"
        ) from error
    return older


def _drop_newer_attributes(node: onnx.NodeProto, opset: int) -> None:
    """Drop attributes that the older operator lacks, if they have their default value: ONNX's converter leaves them in."""
    older, newer = (onnx.defs.get_schema(node.op_type, version).attributes for version in (opset, _OLDEST))
    for attribute in list(node.attribute):
        if attribute.name not in older and attribute == newer[attribute.name].default_value:
            node.attribute.remove(attribute)


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without torch's annotations, such as source lines and file paths of this machine."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del noted.metadata_props[:]
        noted.doc_string = ""
    del graph.value_info[:]  # inferred again where they are needed
    return model


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split()) or type(error).__name__
