"""What pruning aims at: from the order in which parts go, and the shape they are in, to a smaller shape.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

from limbeck.core.allocation import TOLERANCE, Part, allocate, smallest
from limbeck.core.cost import Cost
from limbeck.core.shape import Shape
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.core.measurement import Measurement
    from limbeck.model.pruning.slicing import RemovalOrders


class Goal(Protocol):
    """Decides how many heads and neurons each layer keeps."""

    def __call__(self, orders: RemovalOrders, shape: Shape) -> Shape:
        """Return the shape to prune to, of the same depth.

        Args:
            orders: In which order each layer loses heads and neurons.
            shape: Shape of the model.

        Raises:
            InputError: No shape meets the goal.
        """
        ...

    def out_of_reach(self, shape: Shape) -> str | None:
        """Return the message for a goal that no smaller shape meets, whatever the scores; None if one may."""
        ...


@dataclass(frozen=True)
class UniformGoal:
    """At most so many heads and neurons in every layer.

    >>> goal = UniformGoal(heads=2)
    >>> str(goal.shape(Shape.uniform(layers=2, hidden=8, heads=4, ffn=6)))
    '2x8 heads 2 of 2 ffn 6'
    """

    heads: int | None = None
    ffn: int | None = None

    def __call__(self, orders: RemovalOrders, shape: Shape) -> Shape:
        """Return the shape with these widths."""
        if message := self.out_of_reach(shape):
            raise InputError(message)
        return self.shape(shape)

    def shape(self, shape: Shape) -> Shape:
        """Return the shape with these widths; layers that are narrower stay as they are."""
        layers = (
            replace(
                layer,
                heads=layer.heads if self.heads is None else min(self.heads, layer.heads),
                ffn=layer.ffn if self.ffn is None else min(self.ffn, layer.ffn),
            )
            for layer in shape.layers
        )
        return replace(shape, layers=tuple(layers))

    def out_of_reach(self, shape: Shape) -> str | None:
        """Return the message for more heads or neurons than the model has; None if it has enough."""
        widest = {
            "heads": max((layer.heads for layer in shape.layers), default=0),
            "ffn": max((layer.ffn for layer in shape.layers), default=0),
        }
        for name, goal in (("heads", self.heads), ("ffn", self.ffn)):
            if goal is not None and goal > widest[name]:
                return f"{name}: the model has {widest[name]} in a layer, got {goal}; use at most {widest[name]}"
        return None


@dataclass(frozen=True)
class CostGoal:
    """The least loss within a budget.

    Attributes:
        cost: Cost of shapes.
        budget: Most that the result may cost, in the unit of ``cost``.
        ffn_multiple: Widths of the feed-forward part that are tried: multiples of this.
        limit: What keeps shapes from becoming smaller, for messages.
    """

    cost: Cost
    budget: float
    ffn_multiple: int = 32
    limit: str = "sees its text"

    def __call__(self, orders: RemovalOrders, shape: Shape) -> Shape:
        """Return the shape within the budget that loses least."""
        by_name = {"heads": orders.heads, "ffn": orders.ffn}
        parts = [
            Part(layer, name, widths, [by_name[name][layer].loss(width) for width in widths])
            for layer, name, widths in self._widths(shape)
        ]
        allocated = allocate(shape, parts, lambda shapes: self.cost.many(shapes)[:, 0].tolist(), self.budget)
        if allocated is None:
            raise InputError(self._too_tight(smallest(shape, parts)))
        return allocated

    def out_of_reach(self, shape: Shape) -> str | None:
        """Return the message for a budget below the cost of the smallest shape; None if it is above."""
        least = smallest(shape, [Part(*part, [0.0] * len(part[-1])) for part in self._widths(shape)])
        return self._too_tight(least) if self.cost(least).value > self.budget * (1 + TOLERANCE) else None

    def _too_tight(self, least: Shape) -> str:
        fact = self.cost(least)
        return (
            f"the goal of {self.budget:.4g} {fact.unit} is below the {fact.value:.4g} of {least}, the smallest that "
            f"{self.limit}; keep fewer layers or ask for less"
        )

    def _widths(self, shape: Shape) -> Iterator[tuple[int, str, list[int]]]:
        """Yield layer, 'heads' or 'ffn', and the widths that each may have.

        The last layer that has heads keeps one: a token that attends nowhere knows nothing of the others. So does a
        layer that passes on fewer tokens than it reads: without attention it could not judge them.
        """
        cost = cache(self.cost)
        seeing = max((index for index, layer in enumerate(shape.layers) if layer.heads), default=None)
        judging = {index for index, (read, left) in enumerate(shape.token_shares) if left < read}
        for index, layer in enumerate(shape.layers):
            neurons = sorted({*range(0, layer.ffn + 1, self.ffn_multiple), layer.ffn})
            heads = range(int(index == seeing or index in judging), layer.heads + 1)
            yield index, "heads", _measured_widths(heads, "heads", shape, cost)
            yield index, "ffn", _measured_widths(neurons, "ffn", shape, cost)


def _measured_widths(widths: Sequence[int], name: str, shape: Shape, cost: Callable[[Shape], Measurement]) -> list[int]:
    """Return the widths that the cost model was measured at: those for which it extrapolates no further.

    What is beyond the measured widths looks as cheap as the fit happens to make it, and pruning would run there.
    """

    def outside(width: int) -> set[str]:
        narrowed = (replace(layer, **{name: min(width, getattr(layer, name))}) for layer in shape.layers)
        return set(cost(replace(shape, layers=tuple(narrowed))).detail.get("extrapolates", ()))

    whole = outside(widths[-1])
    return [width for width in widths if width == widths[-1] or outside(width) <= whole]
