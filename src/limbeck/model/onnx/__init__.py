"""Encoders as ONNX graphs: written from weights, quantized, and run."""
