"""PyTorch, eager or compiled, on the processor or an NVIDIA GPU."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtimes import Array, Input, Option, Settings, Timer
from devices.runtimes.loading import as_device_error, check_inputs, load_library, onnx_inputs
from devices.runtimes.torch_graph import read_graph
from ofa.errors import DeviceError

__all__ = ["PyTorch"]

_PLACE = re.compile(r"cpu|cuda(:\d+)?")


class PyTorch:
    """PyTorch in inference mode.

    It executes the ONNX file with one PyTorch function per operator: folded batch norms stay folded, no module is called, and activations
    are not in place. So eager times are a little below those of the exported modules.
    Every call on a GPU is synchronized, as an application that needs the result must do. TF32 is off: float32 is computed in float32.

    Options:
        channels_last: whether images and weights have the channels-last memory format.
        compiled: ``torch.compile`` instead of eager execution. It needs a C++ compiler (on a GPU: Triton), and loading takes seconds.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
    """

    name = "pytorch"
    format = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {"channels_last": True, "compiled": False, "device": "cpu"}

    def place(self, settings: Settings) -> str:
        """The option ``device``."""
        return str(settings.option("device"))

    def version(self) -> str:
        """Version of the installed PyTorch."""
        return str(_library().__version__)

    def load(self, path: Path, settings: Settings) -> _Session:
        """Read an ONNX file, compile it if the settings ask for it, and run it once. Sets PyTorch's number of threads."""
        torch = _library()
        place = str(settings.option("device"))
        _check_available(torch, place)
        torch.set_num_threads(settings.threads)
        model = _read(path)
        inputs = onnx_inputs(_onnx(), model, path, batch=settings.batch)
        layout = torch.channels_last if settings.option("channels_last") else torch.contiguous_format
        network = read_graph(torch, model, path.name).to(place)
        for constant in network.buffers():
            if constant.dim() == 4:
                constant.data = constant.data.contiguous(memory_format=layout)
        if settings.option("compiled"):
            network = torch.compile(network, fullgraph=True, dynamic=False)
        rule = f"PyTorch must be able to run '{path.name}' on {place}"
        session = _Session(torch, network, inputs, place, layout, (rule, _remedy(settings)))
        session.run({name: np.zeros(*each) for name, each in inputs.items()})
        return session


def _check_available(torch: Any, place: str) -> None:
    if not _PLACE.fullmatch(place):
        raise DeviceError(f"option 'device' of runtime 'pytorch' must be cpu, cuda or cuda:N, but is '{place}'; correct it")
    with as_device_error(f"PyTorch must reach '{place}'", "name a machine with such a GPU, or its PyTorch"):
        torch.empty(0, device=place)


def _remedy(settings: Settings) -> str:
    compiler = "check that there is a compiler, or set the option 'compiled' to false"
    return compiler if settings.option("compiled") else "export it again"


class _Session:
    def __init__(
        self, torch: Any, network: Any, inputs: dict[str, Input], place: str, layout: Any, rule_and_remedy: tuple[str, str]
    ) -> None:
        self._torch, self._network, self._inputs, self._place, self._layout = torch, network, inputs, place, layout
        self._rule_and_remedy = rule_and_remedy

    def inputs(self) -> dict[str, Input]:
        return dict(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        tensors = self._tensors(inputs)
        with self._running():
            return [np.array(output.cpu().contiguous().numpy()) for output in self._network(*tensors)]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        tensors = self._tensors(inputs)
        network, wait, clock = self._network, self._wait(), time.perf_counter

        def timed(calls: int) -> float:
            with self._running():
                wait()
                start = clock()
                for _ in range(calls):
                    network(*tensors)
                    wait()
                return clock() - start

        return timed

    def _wait(self) -> Any:
        torch, place = self._torch, self._place
        # All work is in one stream. Synchronizing the whole device takes longer, which would distort small blocks.
        return (lambda: None) if place == "cpu" else torch.cuda.current_stream(place).synchronize

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run without gradients and without TF32, which cuDNN uses for float32 by default, and cuBLAS if the environment asks for it."""
        torch = self._torch
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with (
                as_device_error(*self._rule_and_remedy),
                torch.inference_mode(),
                torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _tensors(self, inputs: Mapping[str, Array]) -> list[Any]:
        check_inputs(inputs, self._inputs)
        tensors = [self._torch.from_numpy(inputs[name].copy()).to(self._place) for name in self._inputs]
        return [each.contiguous(memory_format=self._layout) if each.dim() == 4 else each for each in tensors]


def _read(path: Path) -> Any:
    onnx = _onnx()
    with as_device_error(f"an ONNX file must be readable to be executed, as '{path.name}' must", "export it again"):
        model = onnx.load(str(path))
        if not model.graph.node:  # protobuf accepts an empty file as an empty message
            raise ValueError("it holds no operators")
        onnx.checker.check_model(str(path))  # given the model, it would first write a copy, the slowest part of all
    return model


def _onnx() -> Any:
    return load_library("pytorch", ("onnx",), "onnx")


def _library() -> Any:
    return load_library("pytorch", ("torch",), "torch")
