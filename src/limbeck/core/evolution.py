"""Searches of a space of shapes: random, by a rule of thumb, and evolutionary. Pure: they ask what a shape is worth.

Reference: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686), whose searches Bigger&Faster (arXiv:2209.12127) took over:
shapes near a latency bound; an evolution whose generations are half new shapes and half mutations of parents that are
drawn in proportion to their worth; a rule for shapes of one width in all layers. Differs: parents are also crossed, and
a shape is never asked about twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

from limbeck.core.shape import Shape
from limbeck.core.space import Space

Fits = Callable[[Shape], bool]
Worth = Callable[[Sequence[Shape]], Sequence[float]]
"""What shapes are worth, more is better; asked for many at once, so that they can be judged side by side."""
TRIES = 2000  #: shapes that are drawn for one that fits, at most


def draw(space: Space, fits: Fits, count: int, chance: Random, but: Mapping[Shape, float] | None = None) -> list[Shape]:
    """At most ``count`` different shapes that fit and are not in ``but``; fewer where the space has no more."""
    found: dict[Shape, None] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        shape = space.sample(chance)
        if shape not in found and shape not in (but or {}) and fits(shape):
            found[shape] = None
    return list(found)


def by_rule(shape: Shape) -> bool:
    """AutoTinyBERT's rule: all layers alike, 1.6 d <= FFN <= 1.9 d, 0.7 d <= attention width <= d.

    >>> by_rule(Shape.uniform(4, 384, 12, 640)), by_rule(Shape.uniform(4, 384, 12, 1536))
    (True, False)
    """
    row = shape.layers[0]
    attention = row.heads * shape.head_dim
    narrow = 1.6 * shape.hidden <= row.ffn <= 1.9 * shape.hidden
    return narrow and 0.7 * shape.hidden <= attention <= shape.hidden and len(set(shape.layers)) == 1


def evolve(
    space: Space,
    fits: Fits,
    worth: Worth,
    *,
    population: int = 25,
    generations: int = 4,
    explore: float = 0.5,
    mutation: float = 0.25,
    chance: Random,
) -> Iterator[dict[Shape, float]]:
    """All shapes asked about so far, with their worth, after every generation.

    A generation is ``population`` new shapes: a share ``explore`` drawn from the space, the rest mutated children of
    two parents among the best ``population``, each drawn with a chance in proportion to its rank.
    """
    known: dict[Shape, float] = {}
    fresh = draw(space, fits, population, chance)
    for generation in range(generations):
        if generation:
            parents = sorted(known, key=lambda shape: -known[shape])[:population]
            fresh = _children(space, fits, parents, round(population * (1 - explore)), mutation, known, chance)
            drawn = draw(space, fits, population - len(fresh), chance, {**known, **dict.fromkeys(fresh, 0.0)})
            fresh += drawn
        if not fresh:
            return
        known = known | dict(zip(fresh, worth(fresh), strict=True))
        yield known


def _children(
    space: Space,
    fits: Fits,
    parents: Sequence[Shape],
    count: int,
    mutation: float,
    known: Mapping[Shape, float],
    chance: Random,
) -> list[Shape]:
    """Different shapes that fit and are not known: mutations of crossed parents, of which the better have more."""
    weights = range(len(parents), 0, -1)
    found: dict[Shape, None] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        one, other = chance.choices(parents, weights, k=2)
        child = space.mutate(space.cross(one, other, chance), chance, mutation)
        if child not in known and child not in found and fits(child):
            found[child] = None
    return list(found)
