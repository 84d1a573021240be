"""Precisions in which an engine computes, from the parsed network and from the loaded engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ofa.exporting.tensorrt_package import Package

__all__ = ["precisions_of_engine", "precisions_of_network"]

_KINDS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
"""Types of the layers that do nearly all of a network's computation."""
_WORDS = {"INT8": "INT8", "FP16": "HALF", "HALF": "HALF", "BF16": "BF16", "FP32": "FLOAT", "FLOAT": "FLOAT"}
"""TensorRT's names of data types, by the words in the engine inspector's descriptions of formats."""


def precisions_of_network(package: Package, network: Any) -> Mapping[str, int]:
    """The number of convolutions and matrix products of a parsed network by the type that they compute in.

    Networks of TensorRT for RTX are strongly typed, so the engine computes in these types. A layer whose input comes from a
    DequantizeLinear counts as the type before that operator.

    Args:
        package: the package that parsed the network.
        network: an INetworkDefinition.

    Returns:
        Numbers of layers by TensorRT's name of the type, such as ``INT8``.
    """
    kinds, layers = package.module.LayerType, [network.get_layer(index) for index in range(network.num_layers)]
    before = {layer.get_output(0).name: layer.get_input(0).dtype.name for layer in layers if layer.type == kinds.DEQUANTIZE}
    counted = [layer for layer in layers if any(layer.type == getattr(kinds, kind) for kind in _KINDS)]
    return dict(Counter(before.get(layer.get_input(0).name, layer.get_input(0).dtype.name) for layer in counted))


def precisions_of_engine(package: Package, engine: Any) -> Mapping[str, int] | None:
    """The number of layers of a loaded engine by the type of their first input, from its inspector; unknown types do not count.

    Args:
        package: the package that loaded the engine.
        engine: an ICudaEngine.

    Returns:
        Numbers of layers by TensorRT's name of the type; None for an engine that was built without descriptions of its layers.
    """
    text = engine.create_engine_inspector().get_engine_information(package.module.LayerInformationFormat.JSON)
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, Mapping)]
    found = Counter(kind for layer in layers if (kind := _type_of(layer)))
    return dict(found) if layers else None


def _type_of(layer: Mapping[str, Any]) -> str:
    described = next((str(tensor.get("Format/Datatype", "")).upper() for tensor in layer.get("Inputs", [])), "")
    return next((name for word, name in _WORDS.items() if word in described), "")
