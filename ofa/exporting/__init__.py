"""Export of networks: ONNX, TensorRT engines, and bundles ready to deploy."""
