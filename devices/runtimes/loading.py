"""What runtimes have in common: importing a library, one sentence for its errors, and the inputs of a file."""

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
"""By the name that a runtime has for a number format the one that numpy has."""

FLOATS, QUANTIZED = ("float32",), ("float32", "uint8", "int8")
"""Number formats of inputs: of runtimes that run networks in floating point alone, and of others."""


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


def bound_input(name: str, shape: Sequence[object], number_format: str, path: Path, *, batch: int, taken: Sequence[str] = FLOATS) -> Input:
    """The input as it is timed.

    Args:
        name: of the input.
        shape: as the runtime gives it; open sizes are no whole numbers above 0.
        number_format: as the runtime calls it.
        path: of the file.
        batch: what an open first size becomes.
        taken: number formats that the runtime's inputs may have.

    Raises:
        DeviceError: it is open somewhere else, or of another number format.
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
    """The inputs of an ``onnx.ModelProto``, as ``bound_input`` has them; ``onnx`` is the library."""
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
    """Hold ``inputs`` against those that a file declares.

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
