"""What executes networks: one small protocol, one file a runtime, and a deterministic fake beside the real ones.

A runtime's library is imported only when it loads a file, so that naming one costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ofa.errors import DeviceError, nearest

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["Array", "Option", "Runtime", "Session", "Timer", "check_inputs", "get_runtime", "runtime_names"]

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
"""A float32 array."""

Option = bool | int | float | str
"""A setting of a runtime."""

Timer = Callable[[int], float]
"""Executes one loaded network ``calls`` times in a row and returns the seconds that took."""


class Session(Protocol):
    """A loaded network."""

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every input, by name."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in the order of the file.

        Raises:
            DeviceError: the inputs are not those of the file, or the runtime failed.
        """
        ...

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        """A function that executes the network on these inputs and says how long it took, without the cost of moving them."""
        ...


class Runtime(Protocol):
    """Something that executes ONNX files."""

    @property
    def name(self) -> str:
        """As in device files."""
        ...

    @property
    def options(self) -> Mapping[str, Option]:
        """The settings that a device file may give, with their defaults."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The number formats that files may have inside, of ``fp32`` and ``fp16``."""
        ...

    def version(self) -> str:
        """Version of the library.

        Raises:
            DeviceError: it is not installed.
        """
        ...

    def load(self, path: Path, device: Device) -> Session:
        """Load an ONNX file under the device's settings.

        Raises:
            DeviceError: the library is not installed, or the file is absent, damaged or of inputs without fixed shape.
        """
        ...


_RUNTIMES = {"fake": "FakeRuntime", "onnxruntime": "OnnxRuntime"}


def runtime_names() -> tuple[str, ...]:
    """Names of all runtimes, installed or not."""
    return tuple(sorted(_RUNTIMES))


def get_runtime(name: str) -> Runtime:
    """A runtime by name.

    Raises:
        DeviceError: there is none of this name; the message names the nearest.
    """
    if name not in _RUNTIMES:
        raise DeviceError(f"there is no runtime '{name}'; {nearest(name, _RUNTIMES)}")
    runtime: Runtime = getattr(importlib.import_module(f"devices.runtimes.{name}"), _RUNTIMES[name])()
    return runtime


def check_inputs(inputs: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Hold ``inputs`` against the shapes that a file declares.

    Raises:
        DeviceError: names, shapes or number formats differ.
    """
    if set(inputs) != set(shapes):
        raise DeviceError(f"a network must be given the inputs {sorted(shapes)}, but got {sorted(inputs)}; name them as the file does")
    for name, shape in shapes.items():
        given = inputs[name]
        if given.shape != shape or given.dtype != np.float32:
            raise DeviceError(
                f"input '{name}' must be float32 {list(shape)}, but is {given.dtype} {list(given.shape)}; "
                f"convert it or export the network anew"
            )
