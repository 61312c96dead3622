"""Integer models for ONNX Runtime."""
