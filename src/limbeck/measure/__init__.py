"""Measuring: time, memory, size, quality and portability of candidates, and times of dummy models of a shape."""
