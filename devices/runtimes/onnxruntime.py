"""ONNX Runtime, on the processor and with other execution providers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtimes import Array, Input, Option, Settings, Timer
from devices.runtimes.loading import QUANTIZED, as_device_error, bound_input, check_inputs, load_library
from ofa.errors import DeviceError

__all__ = ["OnnxRuntime"]

_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
_PLACES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}
"""Memory for inputs and outputs by provider, so that their transfer is not timed; other providers use the processor's memory."""

_EXECUTES_ON = {
    _CPU: "cpu",
    **dict.fromkeys(("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"), "cuda"),
}

_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""No TF32: float32 is computed in float32."""


class OnnxRuntime:
    """ONNX Runtime, all graph optimizations on.

    Options:
        provider: name of the execution provider. Providers other than the processor's come with other packages, such as onnxruntime-gpu,
            onnxruntime-openvino or onnxruntime-directml. Operators that a provider cannot execute run on the processor, as when deployed;
            a provider that executes no operator of a network is an error. TensorRT's provider computes float32 in TF32 and has no switch.
        spinning: let idle threads of a pool spin while they wait for work. Off by default: every loaded network has a thread pool of its
            own, and spinning pools take the processor from the network that is being timed.
    """

    name = "onnxruntime"
    format = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    options: Mapping[str, Option] = {"provider": _CPU, "spinning": False}

    def place(self, settings: Settings) -> str:
        """The processor or the NVIDIA card, by provider; for other providers their name."""
        return _EXECUTES_ON.get(provider := str(settings.option("provider")), provider)

    def version(self) -> str:
        """Version of the installed ONNX Runtime."""
        return str(_library().__version__)

    def load(self, path: Path, settings: Settings) -> _Session:
        """Load an ONNX file with the threads and options of the settings."""
        library = _library()
        provider = str(settings.option("provider"))
        _check_available(provider, library.get_available_providers())
        providers = dict.fromkeys([provider, _CPU])
        remedy = "export it again, with an older opset if this release is too old for it"
        with as_device_error(f"ONNX Runtime {library.__version__} must be able to load '{path.name}'", remedy):
            session = library.InferenceSession(
                str(path),
                _session_options(library, settings),
                providers=list(providers),
                provider_options=[_PROVIDER_OPTIONS.get(each, {}) for each in providers],
                enable_fallback=0,  # fallback would print, and time the processor under the provider's name
            )
        _check_takes_part(provider, session, path)
        return _Session(session, path, _PLACES.get(provider, "cpu"), settings.batch)


def _session_options(library: Any, given: Settings) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = given.threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if given.option("spinning") else "0")
    if given.option("provider") != _CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _check_available(provider: str, available: list[str]) -> None:
    if provider not in available:
        raise DeviceError(
            f"option 'provider' of runtime 'onnxruntime' must be one that the installed onnxruntime has, but '{provider}' is not among "
            f"{', '.join(available)}; install the package that brings it, such as onnxruntime-gpu or onnxruntime-openvino"
        )


def _check_takes_part(provider: str, session: Any, path: Path) -> None:
    if provider == _CPU:
        return
    if provider not in session.get_providers():
        raise DeviceError(
            f"option 'provider' of runtime 'onnxruntime' must work on this machine, but {provider} does not start; "
            "check its driver and libraries"
        )
    # ONNX Runtime before 1.24 does not report the assignment.
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    if assignment is not None and provider not in {part.ep_name for part in assignment()}:
        raise DeviceError(
            f"option 'provider' of runtime 'onnxruntime' must execute something of '{path.name}', but {provider} leaves all of it to the "
            "processor; name another provider"
        )


class _Session:
    def __init__(self, session: Any, path: Path, place: str, batch: int = 1) -> None:
        self._session, self._place = session, place
        self._inputs = {
            each.name: bound_input(each.name, each.shape, each.type, path, batch=batch, taken=QUANTIZED) for each in session.get_inputs()
        }

    def inputs(self) -> dict[str, Input]:
        return dict(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        check_inputs(inputs, self._inputs)
        with _running():
            return [np.asarray(output) for output in self._session.run(None, dict(inputs))]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        outputs = self.run(inputs)
        with _running():
            return _Timed(self._session, self._place, inputs, outputs)


class _Timed:
    """Runs a session with bound inputs and outputs.

    A binding holds addresses only, so this object keeps the arrays and the OrtValues that wrap them alive.
    """

    def __init__(self, session: Any, place: str, inputs: Mapping[str, Array], outputs: list[Array]) -> None:
        # All calls write outputs into the same memory: with new memory each call would pay for page faults.
        names = [argument.name for argument in session.get_outputs()]
        self._arrays = [np.array(array, order="C") for array in (*inputs.values(), *outputs)]
        self._values = [_library().OrtValue.ortvalue_from_numpy(array, place, 0) for array in self._arrays]
        self._session, self._binding = session, session.io_binding()
        for name, value in zip(inputs, self._values, strict=False):
            self._binding.bind_ortvalue_input(name, value)
        for name, value in zip(names, self._values[len(inputs) :], strict=True):
            self._binding.bind_ortvalue_output(name, value)
        self._binding.synchronize_inputs()

    def __call__(self, calls: int) -> float:
        run, binding, clock = self._session.run_with_iobinding, self._binding, time.perf_counter
        with _running():
            start = clock()
            for _ in range(calls):
                run(binding)
            binding.synchronize_outputs()
            return clock() - start


def _running() -> Any:
    return as_device_error("ONNX Runtime must be able to run this network", "export it again")


def _library() -> Any:
    return load_library("onnxruntime", ("onnxruntime",), "onnxruntime")
