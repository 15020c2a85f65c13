"""Cached costs of shapes: single shapes with the full measurement, thousands as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from limbeck.core.cost import Cost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape


class CachedCost(Cost):
    """A cost (a table, a predictor, a formula) that prices each shape once."""

    def __init__(self, cost: Cost) -> None:
        self.cost, self.key = cost, cost.key
        self.measurements: dict[Shape, Measurement] = {}
        self._rows: dict[Shape, list[float]] = {}

    def __call__(self, shape: Shape) -> Measurement:
        """Return the cost of a shape, with its interval."""
        if shape not in self.measurements:
            self.measurements[shape] = self.cost(shape)
        return self.measurements[shape]

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Return value, low end and high end of many shapes [shapes, 3]."""
        missing = [shape for shape in dict.fromkeys(shapes) if shape not in self._rows]
        if missing:
            self._rows.update(zip(missing, self.cost.many(missing).tolist(), strict=True))
        return np.array([self._rows[shape] for shape in shapes], dtype=float).reshape(-1, 3)
