"""How many heads and neurons each layer keeps: as little lost as possible within a budget, by any cost of shapes.

A knapsack wants a price for every part by itself. The price of a width is taken as the difference between two shapes:

    price(part, width) = cost(at, with the part at that width) - cost(at, with the part at its least)

around a shape ``at``: first the whole, then what came out, until the same comes out twice. Where costs add up over
parts, as those of parameters and of a latency table do, the differences are the same around every shape, and the first
answer is the last. Where they do not (a predictor with trees), the differences are right around the answer, where they
are used: at the fixed point the knapsack's total is the cost of the shape itself, so it is the cost that keeps the
budget. Where there is no fixed point, the best of the shapes met on the way that keeps it is the answer.

Reference: ZipLM (Kurtic et al., 2023, arXiv:2302.04089), whose measured latencies add up. Differs: any cost will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.core.knapsack import Option, choose
from limbeck.core.shape import Shape

Costs = Callable[[Sequence[Shape]], Sequence[float]]
"""What shapes cost; asked for many at once, because some answer thousands as fast as one."""
ROUNDS = 20
TIGHTER = 0.998  #: the goal is lowered by this where shapes call for each other in turn
TOLERANCE = 1e-9  #: of the budget: costs are sums of rounded numbers


@dataclass(frozen=True)
class Part:
    """Attention or feed-forward of one layer: widths it may have, ascending, and what is lost with each."""

    layer: int
    name: str  # 'heads' or 'ffn'
    widths: Sequence[int]
    losses: Sequence[float]


def smallest(shape: Shape, parts: Sequence[Part]) -> Shape:
    """The shape with every part at its least."""
    return _with(shape, parts, [0] * len(parts))


def allocate(shape: Shape, parts: Sequence[Part], costs: Costs, budget: float) -> Shape | None:
    """The shape, with each part at one of its widths, that loses least and costs at most ``budget``.

    None when even the smallest costs more. Optimal up to the knapsack's rounding where costs add up; elsewhere it is
    where the search ended, and it costs no more than the budget either.

    >>> parts = [Part(layer, "heads", (0, 1, 2), (3.0 + layer, 1.0, 0.0)) for layer in (0, 1)]
    >>> whole = Shape.uniform(layers=2, hidden=4, heads=2, ffn=8)
    >>> str(allocate(whole, parts, lambda shapes: [sum(row.heads for row in one.layers) for one in shapes], 3.1))
    '2x4 heads 2,1 of 2 ffn 8'
    """
    most, best = budget + TOLERANCE * abs(budget), smallest(shape, parts)
    if costs([best])[0] > most:
        return None
    lost, at, goal = _lost(best, parts), shape, budget
    seen: set[Shape] = set()
    for _ in range(ROUNDS):
        made = _around(at, parts, costs, goal)
        if costs([made])[0] <= most and _lost(made, parts) <= lost:
            best, lost = made, _lost(made, parts)
        if made == at:
            break
        if made in seen:
            goal *= TIGHTER
        seen.add(made)
        at = made
    return best


def _around(at: Shape, parts: Sequence[Part], costs: Costs, budget: float) -> Shape:
    """What the knapsack takes at the prices around a shape; the smallest if nothing fits."""
    beside = [at.with_layer(part.layer, **{part.name: width}) for part in parts for width in part.widths]
    here, *found = (float(cost) for cost in costs([at, *beside]))
    floor, units = here, []
    for part in parts:
        mine, found = found[: len(part.widths)], found[len(part.widths) :]
        floor += mine[0] - here
        units.append([Option(cost - mine[0], loss) for cost, loss in zip(mine, part.losses, strict=True)])
    chosen = choose(units, budget - floor)
    return smallest(at, parts) if chosen is None else _with(at, parts, chosen)


def _with(shape: Shape, parts: Sequence[Part], chosen: Sequence[int]) -> Shape:
    for part, place in zip(parts, chosen, strict=True):
        shape = shape.with_layer(part.layer, **{part.name: part.widths[place]})
    return shape


def _lost(shape: Shape, parts: Sequence[Part]) -> float:
    places = (part.widths.index(getattr(shape.layers[part.layer], part.name)) for part in parts)
    return sum(part.losses[place] for part, place in zip(parts, places, strict=True))
