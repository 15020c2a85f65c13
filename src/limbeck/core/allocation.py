"""Allocate heads and neurons to layers: lose as little as possible within a budget, under any cost of shapes.

A knapsack needs a price for each part on its own. The price of a width is the difference between two shapes:

    price(part, width) = cost(base with the part at that width) - cost(base with the part at its smallest)

``base`` is the full shape in the first round and the previous solution in later rounds, until a solution repeats.
Where the cost is a sum over parts (parameters, a latency table), prices do not depend on the base and the first
solution is final. Where it is not (a predictor made of trees), prices are exact around the solution, which is where
they matter: at the fixed point the knapsack's total equals the cost of the shape, so the true cost meets the budget.
If there is no fixed point, the best shape seen that meets the budget is returned.

Reference: ZipLM (Kurtic et al., 2023, arXiv:2302.04089), whose measured latencies are additive. Differs: works with
any cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.core.knapsack import Option, choose
from limbeck.core.shape import Shape

Costs = Callable[[Sequence[Shape]], Sequence[float]]
"""Cost of many shapes in one call, because some costs price thousands as fast as one."""
ROUNDS = 20
TIGHTEN = 0.998  #: factor on the knapsack's budget when the rounds start to cycle
TOLERANCE = 1e-9  #: relative, on the budget: costs are sums of rounded numbers


@dataclass(frozen=True)
class Part:
    """Attention or feed-forward of one layer: its possible widths, ascending, and the loss at each."""

    layer: int
    name: str  # 'heads' or 'ffn'
    widths: Sequence[int]
    losses: Sequence[float]

    def resize(self, shape: Shape, width: int) -> Shape:
        """Return the shape with this part at another width."""
        if self.name == "heads":
            return shape.with_layer(self.layer, heads=width)
        return shape.with_layer(self.layer, ffn=width)


def smallest(shape: Shape, parts: Sequence[Part]) -> Shape:
    """Return the shape with every part at its smallest width."""
    return _with(shape, parts, [0] * len(parts))


def allocate(shape: Shape, parts: Sequence[Part], costs: Costs, budget: float) -> Shape | None:
    """Choose a width for each part so that the total loss is smallest and the cost is at most ``budget``.

    Optimal up to the knapsack's rounding where costs are additive; a heuristic elsewhere.

    Args:
        shape: The full shape.
        parts: The parts that may shrink.
        costs: The cost, called with several shapes at once.
        budget: Largest cost allowed, in the unit of ``costs``.

    Returns:
        A shape within the budget; None if even the smallest one exceeds it.

    >>> parts = [Part(layer, "heads", (0, 1, 2), (3.0 + layer, 1.0, 0.0)) for layer in (0, 1)]
    >>> whole = Shape.uniform(layers=2, hidden=4, heads=2, ffn=8)
    >>> str(allocate(whole, parts, lambda shapes: [sum(row.heads for row in s.layers) for s in shapes], 3.1))
    '2x4 heads 2,1 of 2 ffn 8'
    """
    limit, best = budget + TOLERANCE * abs(budget), smallest(shape, parts)
    if costs([best])[0] > limit:
        return None
    least_loss, base, goal = _loss(best, parts), shape, budget
    seen: set[Shape] = set()
    for _ in range(ROUNDS):
        solution = _solve_around(base, parts, costs, goal)
        if costs([solution])[0] <= limit and _loss(solution, parts) <= least_loss:
            best, least_loss = solution, _loss(solution, parts)
        if solution == base:
            break
        if solution in seen:
            goal *= TIGHTEN
        seen.add(solution)
        base = solution
    return best


def _solve_around(base: Shape, parts: Sequence[Part], costs: Costs, budget: float) -> Shape:
    """Solve the knapsack at the prices around a shape; return the smallest shape if nothing fits."""
    neighbors = [part.resize(base, width) for part in parts for width in part.widths]
    base_cost, *neighbor_costs = (float(cost) for cost in costs([base, *neighbors]))
    floor, units = base_cost, []
    for part in parts:
        part_costs, neighbor_costs = neighbor_costs[: len(part.widths)], neighbor_costs[len(part.widths) :]
        floor += part_costs[0] - base_cost
        units.append([Option(cost - part_costs[0], loss) for cost, loss in zip(part_costs, part.losses, strict=True)])
    chosen = choose(units, budget + TOLERANCE * abs(budget) - floor)
    return smallest(base, parts) if chosen is None else _with(base, parts, chosen)


def _with(shape: Shape, parts: Sequence[Part], indices: Sequence[int]) -> Shape:
    for part, index in zip(parts, indices, strict=True):
        shape = part.resize(shape, part.widths[index])
    return shape


def _loss(shape: Shape, parts: Sequence[Part]) -> float:
    return sum(part.losses[part.widths.index(_width(shape, part))] for part in parts)


def _width(shape: Shape, part: Part) -> int:
    layer = shape.layers[part.layer]
    return layer.heads if part.name == "heads" else layer.ffn
