"""A space of shapes with their costs and a bound on the cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limbeck.core.analytic_cost import as_shape
from limbeck.core.search_space import Space
from limbeck.core.shape import Shape
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.core.model import TrainableEncoder
    from limbeck.search.cached_cost import CachedCost


@dataclass(frozen=True)
class BoundedSpace:
    """The shapes of a space whose cost is between two limits, in the unit of the cost.

    Attributes:
        space: The shapes.
        costs: Their costs.
        least: Shapes that cost less leave too much of the bound unused.
        most: The bound; infinite where there is none.
        sure: A shape fits only if the upper end of its cost's interval is below the bound.
    """

    space: Space
    costs: CachedCost
    least: float = 0.0
    most: float = math.inf
    sure: bool = True

    @classmethod
    def near(
        cls,
        space: Space,
        costs: CachedCost,
        bound: float,
        *,
        at_least: float = 0.85,
        at_most: float = 1.0,
        sure: bool = True,
    ) -> BoundedSpace:
        """Return the shapes near a bound; the range begins below the largest shape where even that one is cheap.

        Args:
            space: The shapes.
            costs: Their costs.
            bound: Upper limit of a shape's cost.
            at_least: Fraction of the bound, or of the largest shape's cost if that is less, at which the range begins.
            at_most: Fraction of the bound at which it ends.
            sure: Whether the upper end of the cost's interval counts.
        """
        return cls(space, costs, at_least * min(bound, costs(space.largest).value), at_most * bound, sure)

    def excess(self, shapes: Sequence[Shape]) -> list[float]:
        """Return how far each shape is outside the limits, as a fraction of them; at most 0 if it fits [shapes]."""
        values, _, highs = self.costs.many(shapes).T
        most = (highs if self.sure else values) / self.most - 1
        if not self.least:
            return [float(share) for share in most]
        least = 1 - values / self.least
        return [max(float(over), float(under)) for over, under in zip(most, least, strict=True)]

    def fits(self, shapes: Sequence[Shape]) -> list[bool]:
        """Return which shapes are within the limits [shapes]."""
        return [share <= 0 for share in self.excess(shapes)]

    def price(self, shape: Shape) -> tuple[float, float]:
        """Return the cost of a shape, and how far it is outside the limits."""
        return self.costs(shape).value, self.excess([shape])[0]

    def why_empty(self) -> str:
        """Return the message for a search that found no shape within the limits."""
        largest, smallest = self.costs(self.space.largest), self.costs(self.space.smallest)
        return (
            f"no shape of the space costs between {self.least:.4g} and {self.most:.4g} {largest.unit}; "
            f"it goes from {smallest.value:.4g} to {largest.value:.4g}"
        )

    def out_of_reach(self) -> str | None:
        """Return the message for a bound below the cost of the smallest shape; None if it is above."""
        smallest = self.space.smallest
        value, _, high = self.costs.many([smallest])[0]
        if (high if self.sure else value) <= self.most:
            return None
        unit = self.costs(smallest).unit
        sure = f" (surely below {amount(high, unit)})" if self.sure and high > value else ""
        return (
            f"the bound of {amount(self.most, unit)} is out of reach: {smallest}, the smallest slice, "
            f"takes {amount(value, unit)}{sure}; ask for less"
        )


def amount(value: float, unit: str) -> str:
    """Return a cost in words; seconds as milliseconds.

    >>> amount(0.00125, "s"), amount(3.2e6, "MAC")
    ('1.25 ms', '3.2e+06 MAC')
    """
    return f"{value * 1e3:.4g} ms" if unit == "s" else f"{value:.4g} {unit}"


def trained_space(model: TrainableEncoder) -> Space:
    """Return the space of slices that a super-network was trained for.

    Args:
        model: The super-network.

    Raises:
        InputError: The model is not a super-network, or its shape has changed since.
    """
    stored = model.space
    if stored is None:
        raise InputError("the model has no space of slices; train it with 'supernet' first")
    space = Space.from_json(stored)
    if space.largest != as_shape(model.shape):
        raise InputError(
            f"the model is {model.shape}, but its space goes up to {space.largest}; search before other steps change "
            "its shape"
        )
    return space
