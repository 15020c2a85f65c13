"""What shapes cost: one with its whole fact, thousands as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from limbeck.core.cost import Cost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape


class Costs:
    """The costs of shapes by a Cost (a table, a predictor, a formula).

    Each shape is priced once.
    """

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.known: dict[Shape, Measurement] = {}

    def __call__(self, shape: Shape) -> Measurement:
        """The cost of a shape, with its interval."""
        if shape not in self.known:
            self.known[shape] = self.cost(shape)
        return self.known[shape]

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Value, and upper end of the interval where there is one (else the value again) [shapes, 2]."""
        return self.cost.many(shapes)[:, [0, 2]]
