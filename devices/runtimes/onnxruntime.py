"""ONNX Runtime on the processor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.runtimes import Array, Option, Timer, check_inputs
from ofa.errors import DeviceError

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["OnnxRuntime"]

_ERRORS_ONLY = 3


class OnnxRuntime:
    """ONNX Runtime's CPU execution provider, all graph optimizations on.

    Options:
        spinning: let idle threads of a pool spin while they wait for work. Off by default: every loaded network has a pool of its own,
            and spinning ones take the processor from the network that is being timed.
    """

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {"spinning": False}

    def version(self) -> str:
        """Version of the installed ONNX Runtime."""
        return str(_library().__version__)

    def load(self, path: Path, device: Device) -> _Session:
        """Load an ONNX file with the device's threads and options."""
        library = _library()
        settings = library.SessionOptions()
        settings.intra_op_num_threads = device.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.log_severity_level = _ERRORS_ONLY
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if device.option("spinning") else "0")
        try:
            session = library.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise DeviceError(f"ONNX Runtime must be able to load '{path.name}', but: {_first_line(error)}; export it again") from error
        return _Session(session, path)


class _Session:
    def __init__(self, session: Any, path: Path) -> None:
        self._session = session
        self._shapes: dict[str, tuple[int, ...]] = {}
        for argument in session.get_inputs():
            if argument.type != "tensor(float)" or not all(isinstance(size, int) for size in argument.shape):
                raise DeviceError(
                    f"inputs must be float32 of fixed shape to be timed, but '{argument.name}' of '{path.name}' is {argument.type} "
                    f"{argument.shape}; export it with the device's batch and resolution"
                )
            self._shapes[argument.name] = tuple(argument.shape)

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        check_inputs(inputs, self._shapes)
        try:
            return [np.asarray(output) for output in self._session.run(None, dict(inputs))]
        except Exception as error:  # its exceptions have no common base
            raise DeviceError(f"ONNX Runtime must be able to run this network, but: {_first_line(error)}; export it again") from error

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        check_inputs(inputs, self._shapes)
        outputs = self.run(inputs)
        library = _library()
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, library.OrtValue.ortvalue_from_numpy(array))
        # Outputs are written into the same memory at every call: a fresh one would be mapped by the system page by page at every call.
        for argument, array in zip(self._session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(argument.name, library.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)))
        run, clock = self._session.run_with_iobinding, time.perf_counter

        def timed(calls: int) -> float:
            start = clock()
            for _ in range(calls):
                run(binding)
            return clock() - start

        return timed


def _library() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            "runtime 'onnxruntime' must be installed on the device, but is not; install it with: pip install onnxruntime"
        ) from error
    module: ModuleType = onnxruntime
    return module


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
