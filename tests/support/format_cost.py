"""A function of shape and number format as the costs on a target."""

from __future__ import annotations

from collections.abc import Callable

from limbeck.core.cost import Cost, FunctionCost, TargetCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape


class FormatCost(TargetCost):
    """A function from a shape and a number format to a measurement, as a TargetCost."""

    def __init__(self, function: Callable[[Shape, str], Measurement]) -> None:
        self.function = function

    def for_format(self, number_format: str) -> Cost:
        """Return the cost in that number format."""
        return FunctionCost(lambda shape: self.function(shape, number_format))
