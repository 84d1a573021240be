"""PyTorch itself, eager or compiled, on the processor or a GPU: an ONNX file is read into a graph of PyTorch's own operations."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.runtimes import Array, Option, Timer, check_inputs, first_line, fixed_shape, not_installed
from ofa.errors import DeviceError

if TYPE_CHECKING:
    from devices.device import Device

__all__ = ["PyTorch"]


class PyTorch:
    """PyTorch in inference mode.

    Options:
        compiled: by ``torch.compile`` instead of eager. Loading a network then takes seconds.
        device: of PyTorch, such as ``cpu`` or ``cuda``.
        channels_last: whether images and weights lie in memory channels last.
    """

    name = "pytorch"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    options: Mapping[str, Option] = {"channels_last": True, "compiled": False, "device": "cpu"}

    def version(self) -> str:
        """Version of the installed PyTorch."""
        return str(_library().__version__)

    def load(self, path: Path, device: Device) -> _Session:
        """Read an ONNX file, and compile it if the device asks for that."""
        torch = _library()
        place = str(device.option("device"))
        try:
            torch.empty(0, device=place)
        except Exception as error:  # of several kinds, as of the kind of device
            raise DeviceError(f"the option device of '{device.name}' must be one of PyTorch's here, but: {first_line(error)}") from error
        torch.set_num_threads(device.threads)
        model = _read(path)
        shapes = {each.name: _shape(each, path) for each in model.graph.input}
        layout = torch.channels_last if device.option("channels_last") else torch.contiguous_format
        network = _Reader(torch, model, path).network().to(place)
        for parameter in network.buffers():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)
        if device.option("compiled"):
            network = torch.compile(network, fullgraph=True, dynamic=False)
        return _Session(torch, network, shapes, place, layout)


class _Session:
    def __init__(self, torch: Any, network: Any, shapes: dict[str, tuple[int, ...]], place: str, layout: Any) -> None:
        self._torch, self._network, self._shapes, self._place, self._layout = torch, network, shapes, place, layout

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        with self._torch.inference_mode():
            outputs = self._network(*self._tensors(inputs))
        return [np.array(output.float().cpu().contiguous().numpy()) for output in outputs]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        torch, network, clock = self._torch, self._network, time.perf_counter
        tensors = self._tensors(inputs)
        wait = torch.cuda.synchronize if self._place.startswith("cuda") else lambda: None

        def timed(calls: int) -> float:
            with torch.inference_mode():
                wait()
                start = clock()
                for _ in range(calls):
                    network(*tensors)
                wait()
                return clock() - start

        return timed

    def _tensors(self, inputs: Mapping[str, Array]) -> list[Any]:
        check_inputs(inputs, self._shapes)
        tensors = [self._torch.from_numpy(inputs[name].copy()).to(self._place) for name in self._shapes]
        return [each.contiguous(memory_format=self._layout) if each.dim() == 4 else each for each in tensors]


class _Reader:
    """Writes the nodes of an ONNX graph as calls of PyTorch's functions."""

    def __init__(self, torch: Any, model: Any, path: Path) -> None:
        self._torch, self._model, self._path = torch, model, path
        self._root = torch.nn.Module()
        self._graph = torch.fx.Graph()
        self._values: dict[str, Any] = {}
        self._constants: dict[str, Array] = {}

    def network(self) -> Any:
        import onnx.numpy_helper

        self._constants = {each.name: onnx.numpy_helper.to_array(each) for each in self._model.graph.initializer}
        for number, each in enumerate(self._model.graph.input):
            self._values[each.name] = self._graph.placeholder(f"input_{number}")
        for node in self._model.graph.node:
            self._values[node.output[0]] = self._call(node)
        self._graph.output(tuple(self._values[each.name] for each in self._model.graph.output))
        return self._torch.fx.GraphModule(self._root, self._graph).eval()

    def _call(self, node: Any) -> Any:
        import onnx.helper

        settings = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        write = _OPERATORS.get(node.op_type)
        if write is None:
            raise DeviceError(
                f"runtime 'pytorch' must know every operator of a file, but not {node.op_type} of '{self._path.name}'; it knows "
                f"{', '.join(sorted(_OPERATORS))}"
            )
        return write(self, [name for name in node.input if name], settings)

    def value(self, name: str) -> Any:
        """A value of the graph; a constant becomes a buffer of the module."""
        if name not in self._values:
            buffer = f"constant_{len(self._values)}"
            self._root.register_buffer(buffer, self._torch.from_numpy(self._constants[name].copy()))
            self._values[name] = self._graph.get_attr(buffer)
        return self._values[name]

    def number(self, name: str) -> float:
        """A constant scalar."""
        return float(self._constants[name])

    def call(self, function: str, *arguments: Any, **settings: Any) -> Any:
        """A call of one of PyTorch's functions by its dotted name within ``torch``."""
        target = self._torch
        for part in function.split("."):
            target = getattr(target, part)
        return self._graph.call_function(target, arguments, settings)

    def padding(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """Symmetric padding, as PyTorch's operations have it."""
        pads = list(settings.get("pads", [0, 0, 0, 0]))
        half = len(pads) // 2
        if pads[:half] != pads[half:] or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise DeviceError(f"runtime 'pytorch' must have padding alike on both sides, but '{self._path.name}' has {pads}; export it again")
        return tuple(pads[:half])


Names = Sequence[str]
Settings = Mapping[str, Any]


def _conv(reader: _Reader, names: Names, settings: Settings) -> Any:
    return reader.call(
        "nn.functional.conv2d",
        *(reader.value(name) for name in names),
        stride=tuple(settings.get("strides", (1, 1))),
        padding=reader.padding(settings),
        dilation=tuple(settings.get("dilations", (1, 1))),
        groups=settings.get("group", 1),
        **({} if len(names) > 2 else {"bias": None}),
    )


def _gemm(reader: _Reader, names: Names, settings: Settings) -> Any:
    if (settings.get("transA", 0), settings.get("transB", 0)) != (0, 1) or (settings.get("alpha", 1.0), settings.get("beta", 1.0)) != (1, 1):
        raise DeviceError("runtime 'pytorch' must have Gemm as a linear layer (transB = 1, alpha = beta = 1), but this file has not")
    return reader.call("nn.functional.linear", *(reader.value(name) for name in names))


def _pool(function: str) -> Callable[[_Reader, Names, Settings], Any]:
    def write(reader: _Reader, names: Names, settings: Settings) -> Any:
        more: dict[str, Any] = {"ceil_mode": bool(settings.get("ceil_mode", 0))}
        if function == "max_pool2d":
            more["dilation"] = tuple(settings.get("dilations", (1, 1)))
        else:
            more["count_include_pad"] = bool(settings.get("count_include_pad", 0))
        kernel, strides = tuple(settings["kernel_shape"]), tuple(settings.get("strides", (1, 1)))
        return reader.call(f"nn.functional.{function}", reader.value(names[0]), kernel, strides, reader.padding(settings), **more)

    return write


def _batch_norm(reader: _Reader, names: Names, settings: Settings) -> Any:
    x, scale, shift, mean, variance = (reader.value(name) for name in names)
    return reader.call("nn.functional.batch_norm", x, mean, variance, scale, shift, False, 0.0, settings.get("epsilon", 1e-5))


def _hard_sigmoid(reader: _Reader, names: Names, settings: Settings) -> Any:
    if abs(settings.get("alpha", 0.2) - 1 / 6) > 1e-6 or settings.get("beta", 0.5) != 0.5:
        raise DeviceError("runtime 'pytorch' must have HardSigmoid with alpha 1/6 and beta 0.5, but this file has others")
    return reader.call("nn.functional.hardsigmoid", reader.value(names[0]))


def _cast(reader: _Reader, names: Names, settings: Settings) -> Any:
    import onnx

    kind = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}[settings["to"]]
    return reader.call("Tensor.to", reader.value(names[0]), getattr(reader._torch, kind))


def _plain(function: str, *arguments: Any) -> Callable[[_Reader, Names, Settings], Any]:
    return lambda reader, names, settings: reader.call(function, *(reader.value(name) for name in names), *arguments)


_OPERATORS: Mapping[str, Callable[[_Reader, Names, Settings], Any]] = {
    "Add": _plain("add"),
    "AveragePool": _pool("avg_pool2d"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": lambda reader, names, _: reader.call("clamp", reader.value(names[0]), *(reader.number(name) for name in names[1:])),
    "Conv": _conv,
    "Flatten": _plain("flatten", 1),
    "Gemm": _gemm,
    "GlobalAveragePool": _plain("nn.functional.adaptive_avg_pool2d", 1),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain("nn.functional.hardswish"),
    "Identity": lambda reader, names, _: reader.value(names[0]),
    "MaxPool": _pool("max_pool2d"),
    "Mul": _plain("mul"),
    "Relu": _plain("relu"),
}
"""What ``ofa.export.onnx`` writes."""


def _read(path: Path) -> Any:
    onnx = _onnx()
    try:
        model = onnx.load(str(path))
        if not model.graph.node:  # protobuf reads nothing as an empty message
            raise ValueError("it holds no operators")
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises errors of its own, of protobuf's and of the system
        raise DeviceError(f"an ONNX file must be readable, but '{path.name}' is not: {first_line(error)}; export it again") from error
    return model


def _shape(argument: Any, path: Path) -> tuple[int, ...]:
    kind = argument.type.tensor_type
    sizes = [size.dim_value or size.dim_param for size in kind.shape.dim]
    return fixed_shape(argument.name, sizes, "float" if kind.elem_type == _onnx().TensorProto.FLOAT else "not float32", path)


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise not_installed("pytorch", "onnx") from error
    return onnx


def _library() -> Any:
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torch.fx")
    except ImportError as error:
        raise not_installed("pytorch", "torch") from error
    return torch
