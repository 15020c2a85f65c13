"""Costs of shapes, remembered: one shape with its whole measurement, thousands as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape


@runtime_checkable
class HasIntervals(Protocol):
    """A cost that computes the intervals of many shapes at once, as a latency predictor does."""

    def intervals(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Return value, low end and high end of many shapes [shapes, 3]."""
        ...


class CachedCost:
    """A cost (a table, a predictor, any function from shapes to measurements) that prices each shape once.

    A cost with a method ``intervals`` prices many shapes in one call, any other one by one.
    """

    def __init__(self, cost: Callable[[Shape], Measurement]) -> None:
        self.cost = cost
        self.measurements: dict[Shape, Measurement] = {}

    def __call__(self, shape: Shape) -> Measurement:
        """Return the cost of a shape, with its interval."""
        if shape not in self.measurements:
            self.measurements[shape] = self.cost(shape)
        return self.measurements[shape]

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Return value and upper end of the interval [shapes, 2]; the value twice where there is no interval."""
        if isinstance(self.cost, HasIntervals):
            return self.cost.intervals(shapes)[:, [0, 2]]
        costs = [self(shape) for shape in shapes]
        rows = [(cost.value, cost.value if cost.high is None else cost.high) for cost in costs]
        return np.array(rows, dtype=float).reshape(-1, 2)
