"""OpenVINO, on Intel's and other processors and on Intel's GPUs and NPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtimes import Array, Input, Option, Settings, Timer
from devices.runtimes.loading import QUANTIZED, as_device_error, bound_input, check_inputs, load_library
from ofa.errors import DeviceError

__all__ = ["OpenVino"]


class OpenVino:
    """OpenVINO with one stream and its latency hint.

    It computes in the precision of the file; by default OpenVINO would use bfloat16 on processors that support it. Files in half precision
    are computed in float32 if the processor lacks half-precision arithmetic.

    Options:
        device: OpenVINO's device, such as ``CPU``, ``GPU`` or ``NPU``.
        pinning: whether OpenVINO pins its threads to processors (``CPU`` only).
    """

    name = "openvino"
    format = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    options: Mapping[str, Option] = {"device": "CPU", "pinning": False}

    def place(self, settings: Settings) -> str:
        """The processor, or OpenVINO's name of another device."""
        return "cpu" if (place := str(settings.option("device"))) == "CPU" else place

    def version(self) -> str:
        """Version of the installed OpenVINO."""
        return str(_library().__version__)

    def load(self, path: Path, settings: Settings) -> _Session:
        """Load and compile an ONNX file with the threads and options of the settings."""
        core = _core(_library())
        place = str(settings.option("device"))
        _check_available(place, core.available_devices)
        with as_device_error(f"OpenVINO must be able to load '{path.name}' on {place}", "export it again"):
            model = core.read_model(str(path))
            inputs = {port.get_any_name(): _input(port, path, settings.batch) for port in model.inputs}
            if any(port.get_partial_shape().is_dynamic for port in model.inputs):
                model.reshape({name: each.shape for name, each in inputs.items()})
            return _Session(core.compile_model(model, place, _properties(core, place, settings)), inputs)


def _check_available(place: str, available: list[str]) -> None:
    if place not in available and place not in {name.partition(".")[0] for name in available}:  # GPU is the first of GPU.0 and GPU.1
        raise DeviceError(
            f"option 'device' of runtime 'openvino' must be one that OpenVINO finds there, but '{place}' is not among "
            f"{', '.join(available)}; name one of these, or install its driver"
        )


def _properties(core: Any, place: str, settings: Settings) -> dict[str, Any]:
    """Properties under OpenVINO's names, as in its documentation of each plugin."""
    # With the hint f16, a processor without half-precision arithmetic would use bfloat16.
    half = settings.precision == "fp16" and "FP16" in core.get_property(place, "OPTIMIZATION_CAPABILITIES")
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f16" if half else "f32"}
    if place == "CPU":
        properties |= {"INFERENCE_NUM_THREADS": settings.threads, "ENABLE_CPU_PINNING": bool(settings.option("pinning"))}
    return properties


class _Session:
    def __init__(self, compiled: Any, inputs: dict[str, Input]) -> None:
        self._compiled, self._inputs = compiled, inputs

    def inputs(self) -> dict[str, Input]:
        return dict(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        request = self._request(inputs)
        with _running():
            request.infer(share_outputs=True)
            return [np.array(request.get_output_tensor(index).data) for index in range(len(self._compiled.outputs))]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        request = self._request(inputs)
        run, clock = request.infer, time.perf_counter

        def timed(calls: int) -> float:
            with _running():
                start = clock()
                for _ in range(calls):
                    run(share_outputs=True)  # avoids a copy of the outputs
                return clock() - start

        return timed

    def _request(self, inputs: Mapping[str, Array]) -> Any:
        """A request with its inputs copied into the plugin's own tensors."""
        check_inputs(inputs, self._inputs)
        with _running():
            request = self._compiled.create_infer_request()
            for name, array in inputs.items():
                request.get_tensor(name).data[...] = array
        return request


def _input(port: Any, path: Path, batch: int) -> Input:
    sizes = [size.get_length() if size.is_static else str(size) for size in port.get_partial_shape()]
    number_format = str(port.element_type.to_dtype())
    return bound_input(port.get_any_name(), sizes, number_format, path, batch=batch, taken=QUANTIZED)


def _running() -> Any:
    return as_device_error("OpenVINO must be able to run this network", "export it again")


@lru_cache(maxsize=1)
def _core(library: Any) -> Any:
    """The OpenVINO core; cached, so that plugins are loaded once."""
    return library.Core()


def _library() -> Any:
    return load_library("openvino", ("openvino",), "openvino", "openvino")
