"""Measuring: time, memory, size and quality of candidates, and costs predicted from a shape."""
