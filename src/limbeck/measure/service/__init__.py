"""The measuring service: times ONNX graphs for other machines, over HTTP."""
