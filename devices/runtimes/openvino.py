"""OpenVINO, on Intel's and other processors and on Intel's GPUs and NPUs."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.runtimes import Array, Option, Timer, check_inputs, first_line, fixed_shape, not_installed
from ofa.errors import DeviceError

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["OpenVino"]

_TELEMETRY = "openvino_telemetry"


class OpenVino:
    """OpenVINO with one stream and its latency hint.

    It computes in the precision of the file: left to itself, it takes bfloat16 on processors that have it.

    Options:
        device: of OpenVINO: ``CPU``, ``GPU``, ``NPU``.
        pinning: whether it binds its threads to processors (the processor's plugin only).
    """

    name = "openvino"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {"device": "CPU", "pinning": False}

    def version(self) -> str:
        """Version of the installed OpenVINO."""
        return str(_library().__version__)

    def load(self, path: Path, device: Device) -> _Session:
        """Load and compile an ONNX file with the device's threads and options."""
        place = str(device.option("device"))
        core = _core(_library())
        if place.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
            raise DeviceError(
                f"the option device of '{device.name}' must be one that OpenVINO finds here, but '{place}' is not among "
                f"{', '.join(core.available_devices)}; check its driver"
            )
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        properties["INFERENCE_PRECISION_HINT"] = "f16" if device.precision == "fp16" else "f32"
        if place == "CPU":
            properties |= {"INFERENCE_NUM_THREADS": device.threads, "ENABLE_CPU_PINNING": bool(device.option("pinning"))}
            if device.precision == "fp16":
                del properties["INFERENCE_PRECISION_HINT"]  # the file says it; not every processor takes the hint
        try:
            model = core.read_model(str(path))
            shapes = {
                each.get_any_name(): fixed_shape(each.get_any_name(), _sizes(each), str(each.element_type.to_dtype()), path)
                for each in model.inputs
            }
            return _Session(core.compile_model(model, place, properties), shapes)
        except DeviceError:
            raise
        except Exception as error:  # its exceptions have no common base
            raise DeviceError(f"OpenVINO must be able to load '{path.name}', but: {first_line(error)}; export it again") from error


class _Session:
    def __init__(self, compiled: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        self._compiled, self._shapes = compiled, shapes

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        request = self._request(inputs)
        request.infer()
        return [np.array(request.get_output_tensor(i).data) for i in range(len(self._compiled.outputs))]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        request = self._request(inputs)
        run, clock = request.infer, time.perf_counter

        def timed(calls: int) -> float:
            start = clock()
            for _ in range(calls):
                run()
            return clock() - start

        return timed

    def _request(self, inputs: Mapping[str, Array]) -> Any:
        check_inputs(inputs, self._shapes)
        request = self._compiled.create_infer_request()
        for name, array in inputs.items():
            request.set_tensor(name, _library().Tensor(array))
        return request


def _sizes(port: Any) -> list[object]:
    return [size.get_length() if size.is_static else str(size) for size in port.get_partial_shape()]


@lru_cache(maxsize=1)
def _core(library: Any) -> Any:
    return library.Core()


def _library() -> Any:
    # Importing it would start a process that reports the import to a server: a measurement is nobody's business, and has no time for it.
    hidden = sys.modules.setdefault(_TELEMETRY, None) is None  # type: ignore[call-overload]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise not_installed("openvino", "openvino", "openvino") from error
    finally:
        if hidden:
            sys.modules.pop(_TELEMETRY, None)
