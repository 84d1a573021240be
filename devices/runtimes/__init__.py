"""Runtimes that execute networks: a small protocol, one module per runtime, and a deterministic fake for tests.

A runtime's library is imported only when it loads a file, so naming a runtime costs nothing. A user's own runtime is a class registered in
``RUNTIMES``, by ``RUNTIMES.register`` or by the entry point ``ofa.runtimes`` of its package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from devices.checks import called, check_choice, check_fields, check_keys, check_range
from ofa.errors import DeviceError
from ofa.opsets import NEWEST_OPSET, OLDEST_OPSET, OPSET
from ofa.registry import Registry

__all__ = [
    "RUNTIMES",
    "Array",
    "Input",
    "Option",
    "Runtime",
    "Session",
    "Settings",
    "Timer",
    "adopt",
    "get_runtime",
    "reference_to",
]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
"""An input or output array of a network: float32, int8 or uint8."""


class Input(NamedTuple):
    """An input of a network.

    Attributes:
        shape: its shape.
        dtype: numpy's name of its number format: ``float32``, or ``int8`` or ``uint8`` for blocks of quantized networks.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"


Option = bool | int | float | str
"""A setting of a runtime."""

Timer = Callable[[int], float]
"""Executes a loaded network ``calls`` times in a row and returns the elapsed seconds."""

_LONGEST_PAUSE_MS = 60_000
_MOST_THREADS, _LARGEST_BATCH = 1024, 2**16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a runtime. A deployed network has the latency of a table only under the same settings.

    Args:
        runtime: name of the runtime, one of ``RUNTIMES``.
        threads: threads per call.
        precision: number format of weights and activations, one of the runtime's (``fp32``, ``fp16``, ``int8``).
        batch: images per call.
        pause_ms: idle time in ms before each timed call, as an application has between images; 0 for calls in a row. After a pause caches
            are cold, clocks are low and threads asleep: a call takes longer, often by half.
        opset: ONNX opset of the files for this runtime; the default is the oldest one with all operators.
        pin: whether to pin the process to as many processors as there are threads; the deployed network must be pinned as well.
        options: the runtime's own settings as ``(name, value)`` pairs; missing ones have the runtime's default.

    Raises:
        DeviceError: an invalid value; the message names the nearest valid one.
    """

    runtime: str
    threads: int = 1
    precision: str = "fp32"
    batch: int = 1
    pause_ms: float = 0.0
    opset: int = OPSET
    pin: bool = False
    options: tuple[tuple[str, Option], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, self.words)
        check_choice(self, "runtime", RUNTIMES, self.words)
        _check_precision(self)
        check_range(self, "threads", self.words, 1, _MOST_THREADS)
        check_range(self, "batch", self.words, 1, _LARGEST_BATCH)
        check_range(self, "pause_ms", self.words, 0, _LONGEST_PAUSE_MS)
        check_range(self, "opset", self.words, OLDEST_OPSET, NEWEST_OPSET)
        object.__setattr__(self, "options", _complete_options(self))

    @property
    def words(self) -> str:
        """Words for it in messages."""
        return f"runtime '{self.runtime}'"

    def option(self, name: str) -> Option:
        """The value of one of the runtime's own settings, or its default."""
        return dict(self.options)[name]

    @property
    def place(self) -> str:
        """Where networks are executed; see ``Runtime.place``."""
        return get_runtime(self.runtime).place(self)

    @property
    def format(self) -> str:
        """File format of the runtime; see ``Runtime.format``."""
        return get_runtime(self.runtime).format

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values; ``from_json`` reads them back."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Settings:
        """Read what ``to_json`` wrote."""
        return Settings(**{**fields, "options": tuple(fields["options"].items())})


class Session(Protocol):
    """A loaded network."""

    def inputs(self) -> dict[str, Input]:
        """Shape and number format of every input, by name; a dynamic batch has the size in the settings."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in the order of the file; ``inputs`` are arrays by name, in the shapes of the file with its batch.

        Raises:
            DeviceError: the inputs do not match the file's, or the runtime failed.
        """
        ...

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        """A function that executes the network on these inputs and returns the elapsed time, without the transfer of inputs and outputs.

        It owns all objects that it uses, so the caller need not keep the session.

        Args:
            inputs: arrays by name, in the shapes of the file with its batch.
        """
        ...


class Runtime(Protocol):
    """An engine that executes model files."""

    @property
    def name(self) -> str:
        """Its name in device files."""
        ...

    @property
    def format(self) -> str:
        """Format of its files, one of ``ofa.exporting.formats.FORMATS``."""
        ...

    @property
    def options(self) -> Mapping[str, Option]:
        """Its own settings that a device file may set, with their defaults."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """Supported precisions of files among ``fp32``, ``fp16`` and ``int8``. Inputs and outputs of networks are always float32.

        With ``int8`` blocks of quantized networks also have int8 and uint8 tensors as inputs and outputs.
        """
        ...

    def place(self, settings: Settings) -> str:
        """Processor that executes networks: ``cpu``, ``cuda`` or ``cuda:N`` for the NVIDIA card of that number, or any other name.

        It selects the energy counter and the memory to observe.
        """
        ...

    def version(self) -> str:
        """Version of the library.

        Raises:
            DeviceError: it is not installed.
        """
        ...

    def load(self, path: Path, settings: Settings) -> Session:
        """Load a file under these settings.

        Args:
            path: of the file.
            settings: batch, threads, precision and the runtime's own options.

        Raises:
            DeviceError: the library is not installed, or the file is absent, damaged, or has dynamic dimensions other than the batch.
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
"""The runtimes' classes, installed or not. A user's own class must be at the top level of a module: the agent's process imports it."""


def get_runtime(name: str) -> Runtime:
    """A runtime by name.

    Raises:
        DeviceError: no runtime has this name; the message names the nearest.
    """
    return RUNTIMES.get(name)()


def reference_to(name: str) -> str | None:
    """Import path ``module:class`` of a user's own runtime, for another process; None for the project's runtimes."""
    if name in RUNTIMES.own:
        return None
    runtime = RUNTIMES.get(name)
    return f"{runtime.__module__}:{getattr(runtime, '__qualname__', type(runtime).__qualname__)}"


def adopt(name: str, reference: str | None) -> None:
    """Register a runtime in the agent's process, by the import path that ``reference_to`` returned in the caller's.

    Raises:
        DeviceError: the runtime cannot be imported.
    """
    if reference is not None and name not in RUNTIMES:
        runtime = RUNTIMES.find(reference)
        if name not in RUNTIMES:  # importing the module may have registered it
            RUNTIMES.register(name, runtime)


def _check_precision(settings: Settings) -> None:
    """Raise DeviceError if the runtime lacks the precision; the message names runtimes that have it."""
    wanted, known = settings.precision, get_runtime(settings.runtime).precisions
    if wanted in known:
        return
    others = [name for name in sorted(RUNTIMES) if wanted in get_runtime(name).precisions]
    if others:
        raise DeviceError(
            f"'precision' of {settings.words} must be one of {settings.runtime}, {', '.join(known)}, but is '{wanted}'; correct it, or "
            f"name a runtime that has it: {', '.join(others)}"
        )
    check_choice(settings, "precision", known, settings.words)


def _complete_options(settings: Settings) -> tuple[tuple[str, Option], ...]:
    """The runtime's defaults, overridden by the options, and sorted so that equal settings compare equal."""
    defaults = get_runtime(settings.runtime).options
    check_keys(dict(settings.options), defaults, (), f"[options] of {settings.words}")
    for key, value in settings.options:
        if type(value) is not type(defaults[key]):
            raise DeviceError(f"option '{key}' of {settings.words} must be {called(type(defaults[key]))}, but is {value!r}; correct it")
    return tuple(sorted({**defaults, **dict(settings.options)}.items()))
