"""TensorRT and TensorRT for RTX, on NVIDIA's GPUs. The engine is built where it is timed, strongly typed: the file says the precision."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.runtimes import Array, Option, Timer, check_inputs, first_line, fixed_shape, not_installed
from ofa.errors import DeviceError

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["TensorRt", "TensorRtForRtx"]


class TensorRt:
    """TensorRT: builds an engine for the GPU at hand when a file is loaded, which takes seconds for a block and longer for a network."""

    name = "tensorrt"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {}
    _modules: tuple[str, ...] = ("tensorrt", "tensorrt_bindings")

    def version(self) -> str:
        """Version of the installed package."""
        return str(self._library().__version__)

    def load(self, path: Path, device: Device) -> _Session:
        """Build an engine from an ONNX file."""
        library, cuda = self._library(), _Cuda(self.name)
        log = _log(library)
        builder = library.Builder(log)
        flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = library.OnnxParser(network, log)
        if not path.exists() or not parser.parse(path.read_bytes()):
            reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors)) or "there is nothing to read"
            raise DeviceError(f"{self.name} must be able to load '{path.name}', but: {' '.join(reasons.split())}; export it again")
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            fixed_shape(tensor.name, [int(size) for size in tensor.shape], tensor.dtype.name.lower(), path)
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        engine = None if plan is None else library.Runtime(log).deserialize_cuda_engine(plan)
        if engine is None:
            raise DeviceError(f"{self.name} must be able to build '{path.name}', but: {log.summary()}; change the network or the precision")
        return _Session(engine, library, cuda)

    def _library(self) -> Any:
        for name in self._modules:
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError:
                continue
            except (ImportError, OSError) as error:
                raise DeviceError(f"{self.name} must load on this machine, but: {first_line(error)}; install it for this system") from error
        raise not_installed(self.name, self._package(), self.name)

    def _package(self) -> str:
        return "tensorrt cuda-bindings"


class TensorRtForRtx(TensorRt):
    """TensorRT for RTX."""

    name = "tensorrt-rtx"
    _modules = ("tensorrt_rtx", "tensorrt_rtx_bindings")

    def _package(self) -> str:
        return "tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs cuda-bindings"


class _Cuda:
    """The few calls of CUDA's runtime that are needed to hold tensors and wait."""

    def __init__(self, runtime: str) -> None:
        try:
            self._api: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise not_installed(runtime, "cuda-bindings", runtime) from error
        try:
            count = self._checked(self._api.cudaGetDeviceCount())
        except (DeviceError, RuntimeError) as error:
            raise DeviceError(f"runtime '{runtime}' needs an NVIDIA GPU and its driver, but: {first_line(error)}") from error
        if not count:
            raise DeviceError(f"runtime '{runtime}' needs an NVIDIA GPU, but this machine has none; name a device that has one")

    def allocate(self, size: int) -> int:
        return int(self._checked(self._api.cudaMalloc(size)))

    def free(self, address: int) -> None:
        self._checked(self._api.cudaFree(address))

    def stream(self) -> int:
        return int(self._checked(self._api.cudaStreamCreate()))

    def wait(self, stream: int) -> None:
        self._checked(self._api.cudaStreamSynchronize(stream))

    def copy_in(self, address: int, array: Array) -> None:
        self._checked(self._api.cudaMemcpy(address, array.ctypes.data, array.nbytes, self._api.cudaMemcpyKind.cudaMemcpyHostToDevice))

    def copy_out(self, array: Array, address: int) -> None:
        self._checked(self._api.cudaMemcpy(array.ctypes.data, address, array.nbytes, self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost))

    @staticmethod
    def _checked(answer: tuple[Any, ...]) -> Any:
        error, *values = answer
        if int(error):
            raise DeviceError(f"CUDA must do what it is asked, but reports {error.name}; check the driver and the free memory of the GPU")
        return values[0] if values else None


class _Session:
    def __init__(self, engine: Any, library: Any, cuda: _Cuda) -> None:
        self._context, self._cuda = engine.create_execution_context(), cuda
        self._stream = cuda.stream()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._outputs: dict[str, Array] = {}
        self._addresses: dict[str, int] = {}
        self._engine = engine  # a context does not keep it
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(int(size) for size in engine.get_tensor_shape(name))
            if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT:
                self._shapes[name] = shape
            else:
                self._outputs[name] = np.empty(shape, dtype=np.float32)
            self._addresses[name] = cuda.allocate(4 * int(np.prod(shape)))
            self._context.set_tensor_address(name, self._addresses[name])

    def __del__(self) -> None:
        for address in self._addresses.values():
            self._cuda.free(address)

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        self._take(inputs)
        self._execute()
        self._cuda.wait(self._stream)
        for name, array in self._outputs.items():
            self._cuda.copy_out(array, self._addresses[name])
        return [array.copy() for array in self._outputs.values()]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        self._take(inputs)
        execute, clock = self._execute, time.perf_counter

        def timed(calls: int) -> float:
            start = clock()
            for _ in range(calls):
                execute()
            self._cuda.wait(self._stream)
            return clock() - start

        return timed

    def _take(self, inputs: Mapping[str, Array]) -> None:
        check_inputs(inputs, self._shapes)
        for name, array in inputs.items():
            self._cuda.copy_in(self._addresses[name], np.ascontiguousarray(array))

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise DeviceError("TensorRT must be able to run this network, but refuses; export it again")


def _log(library: Any) -> Any:
    """Keeps errors instead of printing them; its base class exists only once the package is loaded."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))

        def summary(self) -> str:
            return self.errors[0] if self.errors else "no reason is given"

    return Log()
