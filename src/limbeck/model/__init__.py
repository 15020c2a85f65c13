"""The network: encoder, families, cutting, files and ONNX."""
