"""A quick test of a device: whether it answers, and whether its runtime runs a tiny network."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from devices.device import Device
from devices.measure import describe, time_models
from devices.timing import TimingPolicy
from ofa.errors import DeviceError
from ofa.exporting.formats import write_file
from ofa.files import temporary_folder
from ofa.opsets import ir_version_for, least_release

__all__ = ["probe"]

_CHANNELS, _SIDE = 16, 32
_POLICY = TimingPolicy(min_rounds=5, max_rounds=5)
_RUNTIME = "onnxruntime"
_HARD_SWISH_SINCE = 14


def probe(device: Device) -> dict[str, Any]:
    """Describe a device and time one convolution on it.

    The convolution's file has the same ONNX versions as networks and blocks for this device, so a device that passes can read them.

    Returns:
        The keys of ``devices.provenance``, and ``probe``: the timing of a 3x3 convolution of 16 channels at 32 pixels.

    Raises:
        DeviceError: the device is unreachable, or its runtime is not installed, is too old for the files, or cannot run the convolution.
    """
    description = describe(device)
    with temporary_folder("probe") as folder:
        path = write_file(_convolution(device), folder, device.format)
        try:
            timing = time_models(device, {"the probe": path}, rng=np.random.default_rng(0), policy=_POLICY)["the probe"]
        except DeviceError as error:
            known = _too_old(device, description)
            if known is None:
                raise
            raise known from error
    return {**description, "probe": dataclasses.asdict(timing)}


def _too_old(device: Device, description: Mapping[str, Any]) -> DeviceError | None:
    """The error of a runtime that is too old for its device's files; None if it is new enough."""
    ir_version = ir_version_for(device.opset)
    release, installed = least_release(device.opset, ir_version), str(description["runtime_version"])
    if device.runtime != _RUNTIME or release is None or _numbers(installed) >= _numbers(release.onnxruntime):
        return None
    return DeviceError(
        f"ONNX Runtime on device '{device.name}' must be at least {release.onnxruntime} to read files of opset {device.opset} and "
        f"IR version {ir_version}, but is {installed}; upgrade it there, or give the device an older 'opset'"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _convolution(device: Device) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    shape = [device.batch, _CHANNELS, _SIDE, _SIDE]
    images, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "output"))
    weight = numpy_helper.from_array(np.full((_CHANNELS, _CHANNELS, 3, 3), 1 / (9 * _CHANNELS), np.float32), "weight")
    # The activation is the newest operator in networks.
    activation = "HardSwish" if device.opset >= _HARD_SWISH_SINCE else "Relu"
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["sum"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "probe", [images], [output], [weight])
    opsets = [helper.make_opsetid("", device.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version_for(device.opset))
    content: bytes = model.SerializeToString()
    return content
