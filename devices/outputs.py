"""Runs networks on the device on images, which arrive in pieces; the outputs of several calls are returned together.

Shapes: N images of a call, C channels, H W height and width in pixels.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devices.groups import Say, pinned
from devices.runtimes import Array, Session, Settings, get_runtime
from ofa.errors import DeviceError

__all__ = ["FLOAT32", "Outputs"]

FLOAT32 = "<f4"
"""Wire format of images and outputs: little-endian 32-bit floats."""


class Outputs:
    """Runs networks and returns their outputs. The last network stays loaded, because the next images are usually for it."""

    def __init__(self) -> None:
        self._session: tuple[str, Session] | None = None
        self._content = bytearray()

    def take(self, settings: Settings, request: Mapping[str, Any], say: Say) -> dict[str, Any] | None:
        """Take a piece of the images of some calls; with the last piece run the network.

        Args:
            settings: settings of the runtime.
            request: a request ``run`` (see ``devices.agent``).
            say: receives a note before each call.

        Returns:
            Shape and content of the outputs; None while pieces are missing.

        Raises:
            DeviceError: the pieces are out of order, the network cannot be loaded or run, or the images have another shape.
        """
        self._add(request["start"], request["content"])
        if not request["last"]:
            return None
        content, self._content = bytes(self._content), bytearray()
        ((key, path),) = request["networks"].items()
        calls = request["calls"]
        session = self._loaded(settings, key, path, say, calls)
        name, shape = _only_input(session, key)
        if len(content) != calls * math.prod(shape) * np.dtype(FLOAT32).itemsize:
            raise DeviceError(
                f"'{key}' takes float32 {list(shape)} in each of {calls} calls, but {len(content)} bytes came; give images of its "
                "shape, as many at once as the device's batch"
            )
        images = np.frombuffer(content, FLOAT32).astype(np.float32).reshape(calls, *shape)
        outputs = []
        for number in range(calls):
            say({"doing": f"running {key}, call {number + 1} of {calls}", "network": key, "step": number + 1, "steps": calls + 1})
            outputs.append(_only_output(session.run({name: images[number]}), key))
        joined = np.concatenate(outputs)
        return {"shape": list(joined.shape), "content": base64.b64encode(joined.astype(FLOAT32).tobytes()).decode()}

    def _add(self, start: int, content: str) -> None:
        if start == 0:
            self._content = bytearray()
        if start != len(self._content):
            raise DeviceError(f"pieces of images must arrive in order, but one begins at byte {start}; send them again")
        try:
            self._content += base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise DeviceError("a piece of images must be base64, but one is not; send it again") from error

    def _loaded(self, settings: Settings, key: str, path: str, say: Say, calls: int) -> Session:
        named = json.dumps([settings.to_json(), path])
        if self._session is None or self._session[0] != named:
            self._session = None  # two networks might not fit into memory
            say({"doing": f"loading {key}", "network": key, "step": 0, "steps": calls + 1})
            pinned(settings)
            runtime = get_runtime(settings.runtime)
            runtime.version()  # raises if the runtime is not installed, which is no network's failure
            self._session = (named, runtime.load(Path(path), settings))
        return self._session[1]


def _only_input(session: Session, key: str) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the one input that a network of images has."""
    inputs = session.inputs()
    if len(inputs) != 1 or next(iter(inputs.values())).dtype != "float32":
        found = ", ".join(f"{name} {each.dtype}" for name, each in inputs.items())
        raise DeviceError(f"a network must have one float32 input to be run on images, but '{key}' has {found or 'none'}; give another")
    name, (shape, _) = next(iter(inputs.items()))
    return name, shape


def _only_output(outputs: list[Array], key: str) -> Array:
    if len(outputs) != 1:
        raise DeviceError(f"a network must have one output to be run on images, but '{key}' has {len(outputs)}; give another")
    return np.atleast_1d(outputs[0])
