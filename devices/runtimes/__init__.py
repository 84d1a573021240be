"""What executes networks: one small protocol, one file a runtime, and a deterministic fake beside the real ones.

A runtime's library is imported only when it loads a file, so that naming one costs nothing. A runtime of one's own is a class that is
entered in ``RUNTIMES``, by ``RUNTIMES.register`` or by the entry point ``ofa.runtimes`` of its package.
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
"""An array of a number format that networks take or give: float32, or int8 or uint8."""


class Input(NamedTuple):
    """What a network takes.

    Attributes:
        shape: in whole numbers.
        dtype: the number format, as numpy calls it: ``float32``, or ``int8`` or ``uint8`` where a block of a quantized network begins.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"


Option = bool | int | float | str
"""A setting of a runtime."""

Timer = Callable[[int], float]
"""Executes one loaded network ``calls`` times in a row and returns the seconds that took."""

_LONGEST_PAUSE_MS = 60_000
_MOST_THREADS, _LARGEST_BATCH = 1024, 2**16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What executes networks, and how: a deployed network keeps a table's promise only under the same settings.

    Args:
        runtime: what executes them, one of ``RUNTIMES``.
        threads: threads that compute one call.
        precision: number format of weights and activations, one of the runtime's (``fp32``, ``fp16``).
        batch: images in one call.
        pause_ms: milliseconds without work before each call that is timed, as an application has them between images; 0 for calls in a
            row. After a pause caches are cold, clocks are low and threads asleep: a call takes longer, often by half.
        opset: version of ONNX's operators in the files that are written for it; the default is the oldest that has all of them.
        pin: keep the process on as many processors as there are threads, as a deployed network must be then.
        options: settings that only this runtime knows, as ``(name, value)`` pairs; those not given have the runtime's default.

    Raises:
        DeviceError: a value that cannot be; the message names the nearest that can.
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
        """What messages call it."""
        return f"runtime '{self.runtime}'"

    def option(self, name: str) -> Option:
        """The value of one of the runtime's settings, its default where none is given."""
        return dict(self.options)[name]

    @property
    def place(self) -> str:
        """Where networks are executed; see ``Runtime.place``."""
        return get_runtime(self.runtime).place(self)

    @property
    def format(self) -> str:
        """Format of the files that the runtime takes; see ``Runtime.format``."""
        return get_runtime(self.runtime).format

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values; ``from_json`` reads them back."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Settings:
        """What ``to_json`` of settings wrote."""
        return Settings(**{**fields, "options": tuple(fields["options"].items())})


class Session(Protocol):
    """A loaded network."""

    def inputs(self) -> dict[str, Input]:
        """Shape and number format of every input, by name; an open batch is that of the settings."""
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
    """Something that executes files of networks."""

    @property
    def name(self) -> str:
        """As in device files."""
        ...

    @property
    def format(self) -> str:
        """Format of the files that it takes, one of ``ofa.exporting.formats.FORMATS``."""
        ...

    @property
    def options(self) -> Mapping[str, Option]:
        """The settings that a device file may give, with their defaults."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The number formats that files may have inside, of ``fp32``, ``fp16`` and ``int8``; networks take and give float32 with all.

        One of ``int8`` also takes and gives tensors of int8 and uint8: those of a quantized network's blocks.
        """
        ...

    def place(self, settings: Settings) -> str:
        """Where networks are executed: ``cpu``, ``cuda`` or ``cuda:N`` for NVIDIA's card of that number, or any other name.

        By this it is known what counts the energy, and whose memory is used.
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
"""The runtimes' classes, installed or not. One of a user's own stands at the top of a module: the agent, another process, imports it."""


def get_runtime(name: str) -> Runtime:
    """A runtime by name.

    Raises:
        DeviceError: there is none of this name; the message names the nearest.
    """
    return RUNTIMES.get(name)()


def reference_to(name: str) -> str | None:
    """How another process finds a runtime that is not of this project: ``module:class``; None for those of the project."""
    if name in RUNTIMES.own:
        return None
    runtime = RUNTIMES.get(name)
    return f"{runtime.__module__}:{getattr(runtime, '__qualname__', type(runtime).__qualname__)}"


def adopt(name: str, reference: str | None) -> None:
    """Make known here what ``reference_to`` said in the process that asks.

    Raises:
        DeviceError: it cannot be imported.
    """
    if reference is not None and name not in RUNTIMES:
        runtime = RUNTIMES.find(reference)
        if name not in RUNTIMES:  # importing the module may have registered it
            RUNTIMES.register(name, runtime)


def _check_precision(settings: Settings) -> None:
    """Raise DeviceError, which says who has the precision, unless the runtime has it."""
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
    """The options over the runtime's defaults, sorted, so that equal settings are equal values."""
    defaults = get_runtime(settings.runtime).options
    check_keys(dict(settings.options), defaults, (), f"[options] of {settings.words}")
    for key, value in settings.options:
        if type(value) is not type(defaults[key]):
            raise DeviceError(f"option '{key}' of {settings.words} must be {called(type(defaults[key]))}, but is {value!r}; correct it")
    return tuple(sorted({**defaults, **dict(settings.options)}.items()))
