"""ONNX Runtime, on the processor and by its other execution providers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.runtimes import Array, Option, Timer, as_device_error, check_inputs, fixed_shape, load_library
from ofa.errors import DeviceError

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["OnnxRuntime"]

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
_PLACES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}
"""Where a provider wants inputs and outputs, so that moving them is not timed; all others take the processor's memory."""

_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""So that float32 is float32."""


class OnnxRuntime:
    """ONNX Runtime, all graph optimizations on.

    Options:
        provider: name of the execution provider. Others than the processor's come with other packages, such as onnxruntime-gpu,
            onnxruntime-openvino or onnxruntime-directml. What a provider cannot execute runs on the processor, as it does when deployed;
            a provider that executes nothing of a network is an error. TensorRT's provider takes TF32 for float32 and has no switch.
        spinning: let idle threads of a pool spin while they wait for work. Off by default: every loaded network has a pool of its own,
            and spinning ones take the processor from the network that is being timed.
    """

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {"provider": _CPU, "spinning": False}

    def version(self) -> str:
        """Version of the installed ONNX Runtime."""
        return str(_library().__version__)

    def load(self, path: Path, device: Device) -> _Session:
        """Load an ONNX file with the device's threads and options."""
        library = _library()
        provider = str(device.option("provider"))
        _check_available(provider, library.get_available_providers(), device)
        providers = dict.fromkeys([provider, _CPU])
        with as_device_error(f"ONNX Runtime must be able to load '{path.name}'", "export it again"):
            session = library.InferenceSession(
                str(path),
                _settings(library, device),
                providers=list(providers),
                provider_options=[_PROVIDER_OPTIONS.get(each, {}) for each in providers],
                enable_fallback=0,  # it would print, and time the processor under the provider's name
            )
        _check_takes_part(provider, session, path, device)
        return _Session(session, path, _PLACES.get(provider, "cpu"))


def _settings(library: Any, device: Device) -> Any:
    settings = library.SessionOptions()
    settings.intra_op_num_threads = device.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = _ERRORS_ONLY
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if device.option("spinning") else "0")
    if device.option("provider") != _CPU:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def _check_available(provider: str, available: list[str], device: Device) -> None:
    if provider not in available:
        raise DeviceError(
            f"the provider of device '{device.name}' must be one that the installed onnxruntime has, but '{provider}' is not among "
            f"{', '.join(available)}; install the package that brings it, such as onnxruntime-gpu or onnxruntime-openvino"
        )


def _check_takes_part(provider: str, session: Any, path: Path, device: Device) -> None:
    if provider == _CPU:
        return
    if provider not in session.get_providers():
        raise DeviceError(
            f"the provider of device '{device.name}' must work on this machine, but {provider} does not start; "
            "check its driver and libraries"
        )
    # Before ONNX Runtime 1.24 nobody can tell.
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    if assignment is not None and provider not in {part.ep_name for part in assignment()}:
        raise DeviceError(
            f"the provider of device '{device.name}' must execute something of '{path.name}', but {provider} leaves all of it to the "
            "processor; name another provider"
        )


class _Session:
    def __init__(self, session: Any, path: Path, place: str) -> None:
        self._session, self._place = session, place
        self._shapes = {each.name: fixed_shape(each.name, each.shape, each.type, path) for each in session.get_inputs()}

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        check_inputs(inputs, self._shapes)
        with _running():
            return [np.asarray(output) for output in self._session.run(None, dict(inputs))]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        outputs = self.run(inputs)
        with _running():
            binding = self._bind(inputs, outputs)
        run, wait, clock = self._session.run_with_iobinding, binding.synchronize_outputs, time.perf_counter

        def timed(calls: int) -> float:
            with _running():
                start = clock()
                for _ in range(calls):
                    run(binding)
                wait()
                return clock() - start

        return timed

    def _bind(self, inputs: Mapping[str, Array], outputs: list[Array]) -> Any:
        value = _library().OrtValue.ortvalue_from_numpy
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array, self._place, 0))
        # Outputs are written into the same memory at every call: a fresh one would be mapped by the system page by page at every call.
        for argument, array in zip(self._session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(argument.name, value(np.ascontiguousarray(array), self._place, 0))
        binding.synchronize_inputs()
        return binding


def _running() -> Any:
    return as_device_error("ONNX Runtime must be able to run this network", "export it again")


def _library() -> Any:
    return load_library("onnxruntime", ("onnxruntime",), "onnxruntime")
