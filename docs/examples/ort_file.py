"""A runtime: ONNX Runtime with files of its own format ORT, the only one that its smallest builds read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtimes import Array, Input, Option, Settings, Timer
from devices.runtimes.loading import as_device_error, bound_input, check_inputs, load_library


class OrtFile:
    """Files of the format ORT on the processor."""

    name = "ort-file"
    format = "ort"
    options: Mapping[str, Option] = {"spinning": False}
    precisions: tuple[str, ...] = ("fp32",)

    def place(self, settings: Settings) -> str:
        """This machine's processor."""
        return "cpu"

    def version(self) -> str:
        """Of ONNX Runtime."""
        return str(load_library(self.name, ("onnxruntime",), "onnxruntime").__version__)

    def load(self, path: Path, settings: Settings) -> OrtSession:
        """Load a file with the threads and options of the settings; whatever the library raises becomes one sentence."""
        library = load_library(self.name, ("onnxruntime",), "onnxruntime")
        options = library.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(bool(settings.option("spinning")))))
        options.add_session_config_entry("session.load_model_format", "ORT")
        with as_device_error(f"ONNX Runtime must be able to load '{path.name}'", "export it again"):
            return OrtSession(library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), path, settings)


class OrtSession:
    """A loaded network."""

    def __init__(self, session: Any, path: Path, settings: Settings) -> None:
        self._session = session
        self._inputs = {
            each.name: bound_input(each.name, each.shape, each.type, path, batch=settings.batch) for each in session.get_inputs()
        }

    def inputs(self) -> dict[str, Input]:
        """Shape and number format by name."""
        return dict(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in the order of the file."""
        check_inputs(inputs, self._inputs)
        with as_device_error("ONNX Runtime must be able to run this network", "export it again"):
            return [np.asarray(output) for output in self._session.run(None, dict(inputs))]

    def timer(self, inputs: Mapping[str, Array]) -> Timer:
        """Calls in a row, on copies of the inputs."""
        self.run(inputs)
        own, run = {name: array.copy() for name, array in inputs.items()}, self._session.run

        def timed(calls: int) -> float:
            start = time.perf_counter()
            for _ in range(calls):
                run(None, own)
            return time.perf_counter() - start

        return timed
