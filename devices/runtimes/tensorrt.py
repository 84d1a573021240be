"""TensorRT and TensorRT for RTX, on NVIDIA's GPUs."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.runtimes import Array, Input, Option, Settings, Timer
from devices.runtimes.cuda import Gpu
from devices.runtimes.loading import as_device_error, bound_input, check_inputs, load_library
from ofa.errors import DeviceError

__all__ = ["TensorRt", "TensorRtForRtx"]


class TensorRt:
    """TensorRT. Loading a file builds an engine for the present GPU, which takes seconds for a block and longer for a network.

    The engine is strongly typed and without TF32, so it computes in the precision of the file. Every call is synchronized, as an
    application that needs the result must do. The setting ``threads`` has no effect.
    """

    name = "tensorrt"
    format = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {}
    _modules: tuple[str, ...] = ("tensorrt", "tensorrt_bindings")
    _package = "tensorrt"

    def place(self, settings: Settings) -> str:
        """The first NVIDIA card that is visible to this process."""
        return "cuda"

    def version(self) -> str:
        """Version of the installed package."""
        return str(self._library().__version__)

    def load(self, path: Path, settings: Settings) -> _Session:
        """Build an engine from an ONNX file."""
        library = self._library()
        log = _log(library)
        with (
            _without_collecting(),
            as_device_error(f"{self.name} must be able to load '{path.name}'", "export it again, or check the GPU"),
        ):
            builder = _start(library.Builder, log)
            network = _parse(library, builder, log, path, settings.batch)
            gpu = Gpu(self.name)
            config = builder.create_builder_config()
            config.clear_flag(library.BuilderFlag.TF32)
            plan = builder.build_serialized_network(network, config)
            runtime = _start(library.Runtime, log)
            engine = runtime.deserialize_cuda_engine(plan) if plan else None
            if engine is None:
                raise RuntimeError(log.summary())
            return _Session(library, (log, runtime, engine), engine, gpu)

    def _library(self) -> Any:
        return load_library(self.name, self._modules, self._package, self.name)


class TensorRtForRtx(TensorRt):
    """TensorRT for RTX."""

    name = "tensorrt-rtx"
    _modules = ("tensorrt_rtx", "tensorrt_rtx_bindings")
    _package = "tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs"


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Disable garbage collection in the block.

    TensorRT holds a lock while it calls a logger. If Python collects garbage then, and the garbage contains TensorRT objects (for example
    in the traceback of an earlier failure), their destructors deadlock on that lock.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _start(kind: Any, log: Any) -> Any:
    try:
        return kind(log)
    except TypeError as error:  # raised by the bindings if the C++ function returns null
        raise DeviceError(
            f"TensorRT needs an NVIDIA GPU and its driver, but reports: {log.summary()}; name a device that has one"
        ) from error


def _parse(library: Any, builder: Any, log: Any, path: Path, batch: int) -> Any:
    # TensorRT for RTX is always strongly typed and has no flag for it.
    typed = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = library.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()) or not network.num_outputs:  # an unreadable file is parsed as an empty network
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ValueError("; ".join(reasons) or "it holds no network")
    for tensor in map(network.get_input, range(network.num_inputs)):
        declared = tuple(int(size) for size in tensor.shape)
        bound = bound_input(tensor.name, declared, tensor.dtype.name.lower(), path, batch=batch).shape
        if bound != declared:
            tensor.shape = bound  # the engine is for this batch only, as fast as for a file with a fixed batch
    return network


class _Session:
    def __init__(self, library: Any, owners: tuple[Any, ...], engine: Any, gpu: Gpu) -> None:
        self._gpu = gpu
        self._owners = owners  # must outlive the context
        self._context = engine.create_execution_context()
        self._inputs: dict[str, Input] = {}
        self._outputs: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(int(size) for size in engine.get_tensor_shape(name))
            if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT:
                self._inputs[name] = Input(shape)
            else:
                self._outputs[name] = shape
            self._addresses[name] = gpu.allocate(shape)
            self._context.set_tensor_address(name, self._addresses[name])

    def inputs(self) -> dict[str, Input]:
        return dict(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        self._take(inputs)
        self._execute()
        return [self._gpu.read(self._addresses[name], shape) for name, shape in self._outputs.items()]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        check_inputs(inputs, self._inputs)
        taken = {name: array.copy() for name, array in inputs.items()}
        execute, clock = self._execute, time.perf_counter

        def timed(calls: int) -> float:
            self._take(taken)  # another timer may have run since
            start = clock()
            for _ in range(calls):
                execute()
            return clock() - start

        return timed

    def _take(self, inputs: Mapping[str, Array]) -> None:
        check_inputs(inputs, self._inputs)
        for name, array in inputs.items():
            self._gpu.write(self._addresses[name], array)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._gpu.stream):
            raise DeviceError("TensorRT must be able to run this network, but refuses; export it again")
        self._gpu.wait()


def _log(library: Any) -> Any:
    """A logger that stores errors instead of printing them; its base class exists only after the package is imported."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self._errors.append(msg)

        def summary(self) -> str:
            return self._errors[0] if self._errors else "no reason"

    return Log()
