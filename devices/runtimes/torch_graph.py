"""Converts an ONNX graph to a graph of PyTorch functions, for the operators that ``ofa.exporting.onnx`` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from devices.runtimes.loading import load_library
from ofa.errors import DeviceError

__all__ = ["read_graph"]


def read_graph(torch: Any, model: Any, name: str) -> Any:
    """The ``torch.fx.GraphModule`` of an ONNX model; inputs and outputs are in the order of the file.

    Args:
        torch: the library.
        model: a checked ``onnx.ModelProto``.
        name: name of the file, for messages.

    Raises:
        DeviceError: an operator or one of its attributes is not supported.
    """
    return _Reader(torch, model, name).module()


class _Reader:
    """Writes one function call for every node; constants become buffers of the module."""

    def __init__(self, torch: Any, model: Any, name: str) -> None:
        self.torch, self.name = torch, name
        self._onnx = load_library("pytorch", ("onnx",), "onnx")
        self._model = model
        self._root, self._graph = torch.nn.Module(), torch.fx.Graph()
        self._values: dict[str, Any] = {}
        self._constants = {each.name: self._onnx.numpy_helper.to_array(each) for each in model.graph.initializer}

    def module(self) -> Any:
        graph = self._model.graph
        for number, each in enumerate(graph.input):
            self._values[each.name] = self._graph.placeholder(f"input_{number}")
        for node in graph.node:
            self._values[node.output[0]] = self._write(node)
        self._graph.output(tuple(self._values[each.name] for each in graph.output))
        return self.torch.fx.GraphModule(self._root, self._graph).eval()

    def _write(self, node: Any) -> Any:
        if node.op_type not in _OPERATORS:
            raise DeviceError(
                f"runtime 'pytorch' must know every operator of a file, but '{self.name}' has {node.op_type}; it knows "
                f"{', '.join(_OPERATORS)}"
            )
        settings = {each.name: self._onnx.helper.get_attribute_value(each) for each in node.attribute}
        return _OPERATORS[node.op_type](self, list(node.input), settings)

    def value(self, name: str) -> Any:
        """A value of the graph."""
        if name not in self._values:
            buffer = f"constant_{len(self._values)}"
            self._root.register_buffer(buffer, self.torch.from_numpy(self._constants[name].copy()))
            self._values[name] = self._graph.get_attr(buffer)
        return self._values[name]

    def number(self, name: str) -> float | None:
        """A constant scalar; None for an omitted input."""
        if not name:
            return None
        return float(self.array(name))

    def array(self, name: str) -> Any:
        """The value of a constant."""
        self.require(name in self._constants, "settings that are constants")
        return self._constants[name]

    def call(self, function: str, *arguments: Any, **settings: Any) -> Any:
        """Add a call of a PyTorch function, by its name within ``torch``."""
        target = self.torch
        for part in function.split("."):
            target = getattr(target, part)
        return self._graph.call_function(target, arguments, settings)

    def padding(self, settings: Settings) -> tuple[int, ...]:
        """Padding as PyTorch's functions take it, one number for both sides."""
        pads = tuple(settings.get("pads", (0, 0, 0, 0)))
        half = len(pads) // 2
        self.require(pads[:half] == pads[half:] and settings.get("auto_pad", b"NOTSET") == b"NOTSET", "padding alike on both sides")
        return pads[:half]

    def require(self, condition: bool, rule: str) -> None:
        """Raise DeviceError if a file has an attribute that PyTorch's function lacks."""
        if not condition:
            raise DeviceError(f"runtime 'pytorch' must find {rule}, but '{self.name}' has others; export it with ofa.exporting.onnx")


Settings = Mapping[str, Any]
Handler = Callable[[_Reader, Sequence[str], Settings], Any]


def _plain(function: str, *arguments: Any) -> Handler:
    return lambda reader, names, settings: reader.call(function, *map(reader.value, names), *arguments)


def _identity(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    return reader.value(names[0])


def _cast(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    kinds = {1: reader.torch.float32, 10: reader.torch.float16}  # numbers of onnx.TensorProto
    reader.require(settings["to"] in kinds, "casts to float32 and float16")
    return reader.call("Tensor.to", reader.value(names[0]), kinds[settings["to"]])


def _conv(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    x, weight, *bias = map(reader.value, names)
    strides, dilations = tuple(settings.get("strides", (1, 1))), tuple(settings.get("dilations", (1, 1)))
    function = "nn.functional.conv2d"
    return reader.call(
        function, x, weight, bias[0] if bias else None, strides, reader.padding(settings), dilations, settings.get("group", 1)
    )


def _batch_norm(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    x, scale, shift, mean, variance = map(reader.value, names)
    return reader.call("nn.functional.batch_norm", x, mean, variance, scale, shift, eps=settings.get("epsilon", 1e-5))


def _gemm(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    linear = settings.get("transB", 0) == 1 and settings.get("transA", 0) == 0
    reader.require(linear and settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0, "Gemm as linear layers have it")
    return reader.call("nn.functional.linear", *map(reader.value, names))


def _clip(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    return reader.call("clamp", reader.value(names[0]), *map(reader.number, names[1:]))


def _hard_sigmoid(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    alike = abs(settings.get("alpha", 0.2) - 1 / 6) < 1e-6 and settings.get("beta", 0.5) == 0.5
    reader.require(alike, "HardSigmoid with alpha 1/6 and beta 1/2")
    return reader.call("nn.functional.hardsigmoid", reader.value(names[0]))


def _flatten(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    reader.require(settings.get("axis", 1) == 1, "Flatten along axis 1")
    return reader.call("flatten", reader.value(names[0]), 1)


def _max_pool(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    dilations, ceil = tuple(settings.get("dilations", (1, 1))), bool(settings.get("ceil_mode", 0))
    window = _window(reader, settings)
    return reader.call("nn.functional.max_pool2d", reader.value(names[0]), *window, dilation=dilations, ceil_mode=ceil)


def _average_pool(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    reader.require(set(settings.get("dilations", (1, 1))) == {1}, "average pools without dilation")
    ceil, padding_counts = bool(settings.get("ceil_mode", 0)), bool(settings.get("count_include_pad", 0))
    window = _window(reader, settings)
    return reader.call("nn.functional.avg_pool2d", reader.value(names[0]), *window, ceil_mode=ceil, count_include_pad=padding_counts)


def _window(reader: _Reader, settings: Settings) -> tuple[tuple[int, ...], ...]:
    return tuple(settings["kernel_shape"]), tuple(settings.get("strides", (1, 1))), reader.padding(settings)


def _layer_norm(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    x, scale, shift = map(reader.value, names)
    reader.require(settings.get("axis", -1) == -1, "layer norms over the last axis")
    return reader.call("nn.functional.layer_norm", x, (len(reader.array(names[1])),), scale, shift, settings.get("epsilon", 1e-5))


def _softmax(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    reader.require(settings.get("axis", -1) == -1, "Softmax over the last axis")
    return reader.call("softmax", reader.value(names[0]), -1)


def _mean(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    axes = reader.array(names[1]).tolist() if len(names) > 1 else list(settings["axes"])  # an input since opset 18
    return reader.call("mean", reader.value(names[0]), axes, bool(settings.get("keepdims", 1)))


def _transpose(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    return reader.call("permute", reader.value(names[0]), tuple(settings["perm"]))


def _reshape(reader: _Reader, names: Sequence[str], settings: Settings) -> Any:
    reader.require(settings.get("allowzero", 0) == 0, "Reshape whose zeros keep a size")
    sizes = reader.array(names[1]).tolist()
    kept = next((number for number, size in enumerate(sizes) if size), len(sizes))
    reader.require(kept > 0 and 0 not in sizes[kept:], "Reshape that keeps the leading sizes and no others")
    # The kept leading sizes are unknown here, so the remaining dimensions are flattened and split again.
    joined = reader.call("flatten", reader.value(names[0]), kept)
    return joined if sizes[kept:] == [-1] else reader.call("unflatten", joined, kept, tuple(sizes[kept:]))


_OPERATORS: Mapping[str, Handler] = {
    "Add": _plain("add"),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _plain("div"),
    "Erf": _plain("erf"),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain("nn.functional.adaptive_avg_pool2d", 1),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain("nn.functional.hardswish"),
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "MatMul": _plain("matmul"),
    "MaxPool": _max_pool,
    "Mul": _plain("mul"),
    "Pow": _plain("pow"),
    "ReduceMean": _mean,
    "Relu": _plain("relu"),
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Sqrt": _plain("sqrt"),
    "Sub": _plain("sub"),
    "Transpose": _transpose,
}
