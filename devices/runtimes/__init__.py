"""What executes networks: one small protocol, one file a runtime, and a deterministic fake beside the real ones.

A runtime's library is imported only when it loads a file, so that naming one costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from devices.reasons import reason_of
from ofa.errors import DeviceError
from ofa.registry import Registry

if TYPE_CHECKING:
    from devices.device import Device

__all__ = [
    "RUNTIMES",
    "Array",
    "Option",
    "Runtime",
    "Session",
    "Timer",
    "as_device_error",
    "bound_shape",
    "check_inputs",
    "get_runtime",
    "load_library",
    "runtime_names",
]

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
"""A float32 array."""

Option = bool | int | float | str
"""A setting of a runtime."""

Timer = Callable[[int], float]
"""Executes one loaded network ``calls`` times in a row and returns the seconds that took."""


class Session(Protocol):
    """A loaded network."""

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every input, by name; an open batch is the device's."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in the order of the file.

        Raises:
            DeviceError: the inputs are not those of the file, or the runtime failed.
        """
        ...

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        """A function that executes the network on these inputs and says how long it took, without the cost of moving them.

        It owns everything that it touches, so nothing else need be kept.
        """
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
        """The number formats that files may have inside, of ``fp32`` and ``fp16``; inputs and outputs are float32 with both."""
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
            DeviceError: the library is not installed, or the file is absent, damaged or of inputs that are open but for the batch.
        """
        ...


RUNTIMES: Registry[Callable[[], Runtime]] = Registry(
    "runtime",
    group="ofa.runtimes",
    error=DeviceError,
    lazy={
        "fake": "devices.runtimes.fake:FakeRuntime",
        "onnxruntime": "devices.runtimes.onnxruntime:OnnxRuntime",
        "openvino": "devices.runtimes.openvino:OpenVino",
        "pytorch": "devices.runtimes.pytorch:PyTorch",
        "tensorrt": "devices.runtimes.tensorrt:TensorRt",
        "tensorrt-rtx": "devices.runtimes.tensorrt:TensorRtForRtx",
    },
)
"""The runtimes' classes."""

_FLOAT32 = ("float", "float32", "tensor(float)")


def runtime_names() -> tuple[str, ...]:
    """Names of all runtimes, installed or not."""
    return tuple(sorted(RUNTIMES.names()))


def get_runtime(name: str) -> Runtime:
    """A runtime by name.

    Raises:
        DeviceError: there is none of this name; the message names the nearest.
    """
    return RUNTIMES.get(name)()


def load_library(runtime: str, modules: Sequence[str], package: str, extra: str = "") -> Any:
    """Import what a runtime needs.

    Args:
        runtime: its name.
        modules: the names that the library is imported by; the first that is installed is taken.
        package: what pip calls it.
        extra: the extra of this project that brings it, if there is one.

    Raises:
        DeviceError: it is not installed, or does not load on this machine.
    """
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            raise DeviceError(
                f"runtime '{runtime}' must be able to load {module} on the device, but: {reason_of(error)}; "
                "install it again for that system"
            ) from error
    remedy = f"pip install 'ofa-nas[{extra}]' (or there, without ofa: pip install {package})" if extra else f"pip install {package}"
    raise DeviceError(f"runtime '{runtime}' needs {modules[0]} on the device, which is not installed; install it with: {remedy}")


@contextmanager
def as_device_error(rule: str, remedy: str) -> Iterator[None]:
    """Make one sentence of whatever a runtime's library raises: such exceptions have no common base.

    Args:
        rule: what must hold, without its end.
        remedy: the next step.

    Raises:
        DeviceError: anything was raised.
    """
    try:
        yield
    except DeviceError:
        raise
    except Exception as error:
        raise DeviceError(f"{rule}, but: {reason_of(error)}; {remedy}") from error


def bound_shape(name: str, shape: Sequence[object], number_format: str, path: Path, *, batch: int) -> tuple[int, ...]:
    """The shape that an input is timed with, in whole numbers.

    Args:
        name: of the input.
        shape: as the runtime gives it; open sizes are no whole numbers above 0.
        number_format: as the runtime calls it.
        path: of the file.
        batch: what an open first size becomes.

    Raises:
        DeviceError: it is open somewhere else, or not of float32.
    """
    bound = tuple(batch if not place and not _is_size(size) else size for place, size in enumerate(shape))
    sizes = tuple(size for size in bound if isinstance(size, int) and _is_size(size))
    if len(sizes) < len(shape) or number_format not in _FLOAT32:
        raise DeviceError(
            f"inputs must be float32 of a shape that is fixed but for the batch to be timed, but '{name}' of '{path.name}' is "
            f"{number_format} {list(shape)}; export it with the device's resolution"
        )
    return sizes


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size > 0


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
