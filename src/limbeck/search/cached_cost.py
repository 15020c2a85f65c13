"""What shapes cost: one with its whole fact, thousands as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape


class Costs:
    """The costs of shapes by a Cost (a table, a predictor, any function from shapes to facts).

    A Cost with a method ``intervals`` (value, low end, high end of many shapes [shapes, 3]) is asked for many at once;
    of any other each shape is asked once.
    """

    def __init__(self, cost: Callable[[Shape], Measurement]) -> None:
        self.cost = cost
        self.known: dict[Shape, Measurement] = {}

    def __call__(self, shape: Shape) -> Measurement:
        """The cost of a shape, with its interval."""
        if shape not in self.known:
            self.known[shape] = self.cost(shape)
        return self.known[shape]

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Value, and upper end of the interval where there is one (else the value again) [shapes, 2]."""
        together: Any = getattr(self.cost, "intervals", None)
        if together is not None:
            return np.asarray(together(shapes))[:, [0, 2]]
        facts = [self(shape) for shape in shapes]
        rows = [(fact.value, fact.value if fact.high is None else fact.high) for fact in facts]
        return np.array(rows, dtype=float).reshape(-1, 2)
