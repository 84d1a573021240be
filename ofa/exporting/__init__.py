"""How a network leaves: ONNX, TensorRT engines, and bundles ready to ship."""
