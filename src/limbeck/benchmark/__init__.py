"""The architecture benchmark: latency and accuracy over a grid of shapes."""
