"""ONNX Runtime, on the processor and by its other execution providers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.runtimes import Array, Option, Timer, check_inputs, first_line, fixed_shape, not_installed
from ofa.errors import DeviceError

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["OnnxRuntime"]

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}
"""Where outputs of a provider are left, so that bringing them back is not timed; all others leave them in the processor's memory."""


class OnnxRuntime:
    """ONNX Runtime, all graph optimizations on.

    Options:
        provider: name of the execution provider. Others than the processor's come with other packages, such as onnxruntime-gpu,
            onnxruntime-openvino or onnxruntime-directml. What a provider cannot execute runs on the processor, as it does when deployed;
            a provider that takes no part at all is an error.
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
        available = library.get_available_providers()
        if provider not in available:
            raise DeviceError(
                f"the provider of device '{device.name}' must be one that the installed onnxruntime has, but '{provider}' is not among "
                f"{', '.join(available)}; install the package that brings it, such as onnxruntime-gpu"
            )
        settings = library.SessionOptions()
        settings.intra_op_num_threads = device.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.log_severity_level = _ERRORS_ONLY
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if device.option("spinning") else "0")
        try:
            session = library.InferenceSession(str(path), settings, providers=list(dict.fromkeys([provider, _CPU])))
        except Exception as error:  # its exceptions have no common base
            raise DeviceError(f"ONNX Runtime must be able to load '{path.name}', but: {first_line(error)}; export it again") from error
        if provider not in session.get_providers():
            raise DeviceError(
                f"the provider of device '{device.name}' must work on this machine, but {provider} does not start; check its driver and "
                "libraries"
            )
        return _Session(session, path, provider)


class _Session:
    def __init__(self, session: Any, path: Path, provider: str) -> None:
        self._session, self._provider = session, provider
        self._shapes = {each.name: fixed_shape(each.name, each.shape, each.type, path) for each in session.get_inputs()}

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        check_inputs(inputs, self._shapes)
        try:
            return [np.asarray(output) for output in self._session.run(None, dict(inputs))]
        except Exception as error:  # its exceptions have no common base
            raise DeviceError(f"ONNX Runtime must be able to run this network, but: {first_line(error)}; export it again") from error

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        check_inputs(inputs, self._shapes)
        outputs = self.run(inputs)
        library = _library()
        binding = self._session.io_binding()
        place = _DEVICES.get(self._provider, "cpu")
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, library.OrtValue.ortvalue_from_numpy(array, place, 0))
        # Outputs are written into the same memory at every call: a fresh one would be mapped by the system page by page at every call.
        for argument, array in zip(self._session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(argument.name, library.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), place, 0))
        run, wait, clock = self._session.run_with_iobinding, binding.synchronize_outputs, time.perf_counter

        def timed(calls: int) -> float:
            start = clock()
            for _ in range(calls):
                run(binding)
            wait()
            return clock() - start

        return timed


def _library() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise not_installed("onnxruntime", "onnxruntime") from error
    module: ModuleType = onnxruntime
    return module
