"""A file format: ORT, made from ONNX. It is apart from its runtime, whose module the device imports: devices have no exporter."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime

from ofa.exporting.formats import Format


def to_ort(model: bytes) -> bytes:
    """The content of an ORT file from that of an ONNX file."""
    with TemporaryDirectory() as folder:
        path, options = Path(folder) / "network.ort", onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


ORT = Format(suffix=".ort", convert=to_ort)
