"""A fake runtime for tests: real outputs, and times that are computed from the graph instead of measured."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtimes import Array, Input, Option, Settings, Timer
from devices.runtimes.loading import QUANTIZED, as_device_error, check_inputs, load_library, onnx_inputs
from ofa.errors import DeviceError

__all__ = ["FakeRuntime"]

_MS_PER_CALL = 3e-3
_MS_PER_MAC = 1e-7
_MS_PER_NODE = 2e-3
_MS_PER_OUTPUT_VALUE = 2e-7
_FIRST_CALLS = 3  # number of slow first calls of a session, as in real runtimes
_QUANTIZED_SINCE = 19  # the oldest opset whose quantized values onnx's reference evaluator supports


class FakeRuntime:
    """Outputs by ONNX's reference evaluator; the time of a call is linear in multiply-accumulates, nodes and written values.

    Every call has a constant cost as well, so that a network's time differs from the sum of its blocks, as with real runtimes.

    Options:
        noise: standard deviation of the log-normal relative noise of a call; 0.0 makes all calls equal.
        seed: seed of the noise; another seed simulates another measurement of the same device.
        failure: failure while loading a file: "error" (a clean error), "crash" (the process dies), "hang" (it never returns); "" for none.
        failing: only files with this text in their name fail; "" for all.
    """

    name = "fake"
    format = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    options: Mapping[str, Option] = {"failing": "", "failure": "", "noise": 0.0, "seed": 0}

    def place(self, settings: Settings) -> str:
        """This machine's processor."""
        return "cpu"

    def version(self) -> str:
        """Version of the formula of the times."""
        return "1"

    def load(self, path: Path, settings: Settings) -> _Session:
        """Load an ONNX file, or fail according to the options."""
        if str(settings.option("failing")) in path.name:
            _fail(str(settings.option("failure")), path)
        onnx = load_library("fake", ("onnx",), "onnx")
        with as_device_error(f"an ONNX file must be readable, as '{path.name}' must be", "export it again"):
            content = path.read_bytes()
            if not content:  # protobuf accepts an empty file as an empty message
                raise ValueError("it is empty")
            read = onnx.load_from_string(content)
            inputs = onnx_inputs(onnx, read, path, batch=settings.batch, taken=QUANTIZED)
            _bind(read, settings.batch)
            model = onnx.shape_inference.infer_shapes(read, strict_mode=True, data_prop=True)
        # Seed the noise by content, so that it differs between networks but not with the loading order.
        digest = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
        return _Session(model, inputs, float(settings.option("noise")), np.random.default_rng([int(settings.option("seed")), digest]))


def _fail(failure: str, path: Path) -> None:
    if failure == "error":
        raise DeviceError(f"the fake runtime must fail on '{path.name}', and did; set its option 'failure' to \"\"")
    if failure == "crash":
        os._exit(86)
    while failure == "hang":
        time.sleep(1)


class _Session:
    def __init__(self, model: Any, inputs: dict[str, Input], noise: float, rng: np.random.Generator) -> None:
        self._model, self._inputs = model, inputs
        self._call_s = _call_ms(model) / 1e3
        self._noise = noise
        self._rng = rng
        self._calls = 0

    def inputs(self) -> dict[str, Input]:
        return dict(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        check_inputs(inputs, self._inputs)
        from onnx.reference import ReferenceEvaluator

        model = self._model
        if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
            from onnx.version_converter import convert_version

            model = convert_version(model, _QUANTIZED_SINCE)
        return [np.asarray(output) for output in ReferenceEvaluator(model).run(None, dict(inputs))]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        check_inputs(inputs, self._inputs)

        def timed(calls: int) -> float:
            first = max(0, min(calls, _FIRST_CALLS - self._calls))
            self._calls += calls
            factor = math.exp(self._noise * float(self._rng.standard_normal()))
            return self._call_s * (calls + 9 * first) * factor

        return timed


def _bind(model: Any, batch: int) -> None:
    """Set a dynamic batch dimension to the timed size."""
    for argument in model.graph.input:
        sizes = argument.type.tensor_type.shape.dim
        if sizes and not sizes[0].dim_value:
            sizes[0].dim_value = batch
            for each in model.graph.output:  # the declared shapes have a dynamic batch; they are inferred again
                each.type.tensor_type.ClearField("shape")


def _call_ms(model: Any) -> float:
    """Time of one call in ms; see the class."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        shapes[value.name] = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
    macs = values = 0
    for node in model.graph.node:
        written = math.prod(shapes.get(node.output[0], ()))
        values += written
        if node.op_type == "Conv":
            macs += written * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            macs += written * shapes[node.input[0]][-1]
    return _MS_PER_CALL + _MS_PER_MAC * macs + _MS_PER_NODE * len(model.graph.node) + _MS_PER_OUTPUT_VALUE * values
