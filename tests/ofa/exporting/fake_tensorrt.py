"""A stand-in for the Python API that TensorRT and TensorRT for RTX share, which writes down how it is used."""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx

VERSION = "99.1.2"


class ILogger:
    ERROR, INTERNAL_ERROR, WARNING = "ERROR", "INTERNAL_ERROR", "WARNING"


class IProgressMonitor:
    pass


def make(*, has_gpu: bool = True, capabilities: tuple[str, ...] = ()) -> Any:
    """A module; it knows compute capabilities only if some are given, as TensorRT for RTX does and TensorRT does not."""
    module = ModuleType("fake_tensorrt")
    calls: list[Any] = []

    def note(*call: Any) -> None:
        calls.append(call)

    def start(kind: str, log: Any, made: type) -> Any:
        note(kind)
        if not has_gpu:
            log.log(ILogger.WARNING, "warnings are not errors")
            log.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return made(log)

    module.__dict__.update(
        __version__=VERSION,
        ILogger=ILogger,
        IProgressMonitor=IProgressMonitor,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        ProfilingVerbosity=SimpleNamespace(DETAILED="DETAILED"),
        LayerInformationFormat=SimpleNamespace(JSON="JSON"),
        LayerType=SimpleNamespace(CONVOLUTION="Conv", DECONVOLUTION="ConvTranspose", MATRIX_MULTIPLY="Gemm", DEQUANTIZE="DequantizeLinear"),
        Builder=lambda log: start("Builder", log, lambda log: Builder(log, note)),
        Runtime=lambda log: start("Runtime", log, lambda log: Runtime(log, note)),
        OnnxParser=lambda network, log: Parser(network, note),
        calls=calls,
    )
    if capabilities:
        module.__dict__["ComputeCapability"] = SimpleNamespace(__members__={name: name for name in ("NONE", *capabilities)})
    return module


class Tensor(SimpleNamespace):
    pass


class Network:
    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class Layer:
    """A node of the file; all of its tensors are in float32."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.type, self.node = node.op_type, node

    def get_input(self, index: int) -> Tensor:
        return Tensor(name=self.node.input[index], dtype=SimpleNamespace(name="FLOAT"))

    def get_output(self, index: int) -> Tensor:
        return Tensor(name=self.node.output[index], dtype=SimpleNamespace(name="FLOAT"))


class Parser:
    num_errors = 1

    def __init__(self, network: Network, note: Any) -> None:
        self.network, self.note = network, note

    def parse(self, source: bytes) -> bool:
        graph = onnx.load_from_string(source).graph
        self.note("parse", len(source))
        for found, values in ((self.network.inputs, graph.input), (self.network.outputs, graph.output)):
            for value in values:
                kind = value.type.tensor_type
                shape = [dim.dim_value or -1 for dim in kind.shape.dim]
                found.append(
                    Tensor(name=value.name, shape=shape, dtype=SimpleNamespace(name=onnx.TensorProto.DataType.Name(kind.elem_type)))
                )
        self.network.layers = [Layer(node) for node in graph.node]
        return graph.node[0].op_type != "Softmax"

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "no importer for Softmax")


class Config:
    def __init__(self, note: Any) -> None:
        self.note, self.progress_monitor, self.num_compute_capabilities = note, None, 0
        self.profiling_verbosity = "LAYER_NAMES_ONLY"

    def set_compute_capability(self, capability: str, index: int) -> bool:
        self.note("set_compute_capability", capability, index)
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        self.note("add_optimization_profile")
        return 0


class Builder:
    def __init__(self, log: Any, note: Any) -> None:
        self.log, self.note = log, note

    def create_network(self, flags: int) -> Network:
        self.note("create_network", flags)
        return Network()

    def create_builder_config(self) -> Config:
        return Config(self.note)

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *shapes: self.note("set_shape", *shapes))

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        self.note("build_serialized_network", config.num_compute_capabilities)
        monitor: Any = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Optimizing graph", "Building engine", 1)
        for phase, step in (("Optimizing graph", 0), ("Building engine", 0), ("Building engine", 1)):
            if not monitor.step_complete(phase, step):
                return None
        monitor.phase_finish("Building engine")
        tensors = [
            [side, each.name, each.shape, each.dtype.name] for side in ("INPUT", "OUTPUT") for each in getattr(network, f"{side.lower()}s")
        ]
        return json.dumps([config.profiling_verbosity, *tensors]).encode()


class Runtime:
    def __init__(self, log: Any, note: Any) -> None:
        self.log, self.note = log, note

    def deserialize_cuda_engine(self, engine: bytes) -> Any:
        self.note("deserialize_cuda_engine", len(engine))
        try:
            return Engine(json.loads(engine))
        except ValueError:
            self.log.log(ILogger.ERROR, "Error Code 1: Serialization (assertion failed)")
            return None


class Engine:
    num_layers = 4

    def __init__(self, content: list[Any]) -> None:
        self.verbosity, *tensors = content
        self.tensors = {name: (side, shape, dtype) for side, name, shape, dtype in tensors}
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name][1]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][2])

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=self.describe)

    def describe(self, kind: str) -> str:
        """In the words of TensorRT 8 to 10."""
        assert kind == "JSON"
        if self.verbosity != "DETAILED":
            return json.dumps({"Layers": ["conv + relu", "pool", "gemm", "reshape"], "Bindings": []})
        words = (
            "Thirty-two wide channel vectorized Int8 format",
            "Row major linear FP16 format",
            "Float",
            "N/A due to dynamic shapes",
        )
        return json.dumps({"Layers": [{"Name": str(number), "Inputs": [{"Format/Datatype": each}]} for number, each in enumerate(words)]})
