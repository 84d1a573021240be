"""Does a device answer, and does its runtime run? A tiny network tells before a long measurement does."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from devices.device import Device
from devices.measure import describe, time_models
from devices.timing import TimingPolicy

__all__ = ["probe"]

_CHANNELS, _SIDE = 16, 32
_POLICY = TimingPolicy(min_rounds=5, max_rounds=5)
_OPSET, _IR_VERSION = 17, 8  # old enough for every runtime


def probe(device: Device) -> dict[str, Any]:
    """What the device says of itself, and the time it takes for one convolution.

    Returns:
        the keys of ``devices.provenance``, and ``probe``: the timing of a 3x3 convolution of 16 channels at 32 pixels.

    Raises:
        DeviceError: it is unreachable, or its runtime is not installed or cannot run this.
    """
    description = describe(device)
    with tempfile.TemporaryDirectory(prefix="ofa-") as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(_convolution(device.batch))
        timing = time_models(device, {"the probe": path}, rng=np.random.default_rng(0), policy=_POLICY)["the probe"]
    return {**description, "probe": dataclasses.asdict(timing)}


def _convolution(batch: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    shape = [batch, _CHANNELS, _SIDE, _SIDE]
    images, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "output"))
    weight = numpy_helper.from_array(np.full((_CHANNELS, _CHANNELS, 3, 3), 1 / (9 * _CHANNELS), np.float32), "weight")
    node = helper.make_node("Conv", ["images", "weight"], ["output"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "probe", [images], [output], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    content: bytes = model.SerializeToString()
    return content
