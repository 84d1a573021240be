"""Times networks on a device, from outside: starts the agent where the device is, and survives whatever happens to it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devices.device import Device
from devices.timing import Timing, TimingPolicy
from devices.transports import get_transport
from ofa.progress import Progress, silent

__all__ = ["describe", "time_models"]

_SILENCE_LIMIT_S = 120.0


def time_models(
    device: Device,
    models: Mapping[str, str | os.PathLike[str]],
    *,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    silence_limit_s: float = _SILENCE_LIMIT_S,
) -> dict[str, Timing]:
    """Time ONNX files on a device, interleaved.

    Args:
        device: where, and under which settings.
        models: paths of ONNX files (float32 inputs of fixed shape), by any name.
        rng: decides the inputs and the order of measurement.
        progress: told how far it is.
        policy: when a measurement is enough; by default a 1 % confidence interval, or 60 rounds.
        silence_limit_s: longest time that the device may be silent, for instance while it loads one file.

    Returns:
        A timing for each name, in the order of ``models``.

    Raises:
        DeviceError: the device is unreachable, a network cannot be loaded, or the runtime crashes or hangs; the message names the network.
    """
    transport = get_transport(device.transport)
    with transport.start() as agent:
        request = {
            "op": "time",
            "device": device.to_json(),
            "networks": {key: transport.bring(Path(path)) for key, path in models.items()},
            "policy": dataclasses.asdict(policy or TimingPolicy()),
            "seed": int(rng.integers(2**32)),
        }

        def on_note(note: dict[str, Any]) -> None:
            progress(note["done"], note["total"], note["doing"])

        result = agent.request(request, on_note=on_note, silence_limit_s=silence_limit_s)
    return {key: Timing(**result[key]) for key in models}


def describe(device: Device, *, silence_limit_s: float = _SILENCE_LIMIT_S) -> dict[str, Any]:
    """What the device says of itself; see ``devices.provenance``.

    Raises:
        DeviceError: it is unreachable, or its runtime is not installed.
    """
    with get_transport(device.transport).start() as agent:
        request = {"op": "describe", "device": device.to_json()}
        description: dict[str, Any] = agent.request(request, on_note=lambda note: None, silence_limit_s=silence_limit_s)
    return description
