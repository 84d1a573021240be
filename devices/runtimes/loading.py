"""Shared parts of the runtimes: import of their libraries, conversion of errors, and checks of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.runtimes import Array, Input
from ofa.errors import DeviceError
from ofa.reasons import reason_of
from ofa.telemetry import import_without_telemetry

__all__ = ["FLOATS", "QUANTIZED", "as_device_error", "bound_input", "check_inputs", "load_library", "onnx_inputs"]

_FORMATS = {
    **dict.fromkeys(("float", "float32", "tensor(float)"), "float32"),
    **dict.fromkeys(("int8", "tensor(int8)"), "int8"),
    **dict.fromkeys(("uint8", "tensor(uint8)"), "uint8"),
}
"""numpy's names of number formats, by the runtimes' names."""

FLOATS, QUANTIZED = ("float32",), ("float32", "uint8", "int8")
"""Number formats of inputs: of runtimes with floating point only, and of runtimes with quantized networks."""


def load_library(runtime: str, modules: Sequence[str], package: str, extra: str = "") -> Any:
    """Import the library of a runtime.

    Args:
        runtime: name of the runtime.
        modules: module names of the library; the first installed one is imported.
        package: name of the library for pip.
        extra: this project's extra that installs it; "" for none.

    Raises:
        DeviceError: the library is not installed, or does not load on this machine.
    """
    for module in modules:
        try:
            return import_without_telemetry(module)
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
    """Convert any exception of a runtime's library to a ``DeviceError`` of one sentence; the libraries' exceptions have no common base.

    Args:
        rule: the rule, as the beginning of the sentence.
        remedy: the next step.

    Raises:
        DeviceError: instead of the library's exception.
    """
    try:
        yield
    except DeviceError:
        raise
    except Exception as error:
        raise DeviceError(f"{rule}, but: {reason_of(error)}; {remedy}") from error


def bound_input(name: str, shape: Sequence[object], number_format: str, path: Path, *, batch: int, taken: Sequence[str] = FLOATS) -> Input:
    """An input with its batch size set.

    Args:
        name: name of the input.
        shape: its shape from the runtime; dynamic sizes are no positive integers.
        number_format: the runtime's name of its number format.
        path: path of the file.
        batch: size of a dynamic first dimension.
        taken: number formats that the runtime's inputs may have.

    Raises:
        DeviceError: another dimension is dynamic, or the number format is another.
    """
    bound = tuple(batch if not place and not _is_size(size) else size for place, size in enumerate(shape))
    sizes = tuple(size for size in bound if isinstance(size, int) and _is_size(size))
    dtype = _FORMATS.get(number_format)
    if len(sizes) < len(shape) or dtype is None or dtype not in taken:
        raise DeviceError(
            f"inputs must be {' or '.join(taken)} of a shape that is fixed but for the batch to be timed, but '{name}' of '{path.name}' is "
            f"{number_format} {list(shape)}; export it with the device's resolution"
        )
    return Input(sizes, dtype)


def onnx_inputs(onnx: Any, model: Any, path: Path, *, batch: int, taken: Sequence[str] = FLOATS) -> dict[str, Input]:
    """The inputs of an ``onnx.ModelProto``, as of ``bound_input``; ``onnx`` is the library."""
    inputs = {}
    for argument in model.graph.input:
        kind = argument.type.tensor_type
        sizes = [size.dim_value or size.dim_param for size in kind.shape.dim]
        number_format = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        inputs[argument.name] = bound_input(argument.name, sizes, number_format, path, batch=batch, taken=taken)
    return inputs


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size > 0


def check_inputs(inputs: Mapping[str, Array], declared: Mapping[str, Input]) -> None:
    """Check ``inputs`` against the inputs that a file declares.

    Raises:
        DeviceError: names, shapes or number formats differ.
    """
    if set(inputs) != set(declared):
        raise DeviceError(f"a network must be given the inputs {sorted(declared)}, but got {sorted(inputs)}; name them as the file does")
    for name, (shape, dtype) in declared.items():
        given = inputs[name]
        if given.shape != shape or given.dtype != dtype:
            raise DeviceError(
                f"input '{name}' must be {dtype} {list(shape)}, but is {given.dtype} {list(given.shape)}; "
                f"convert it or export the network anew"
            )
