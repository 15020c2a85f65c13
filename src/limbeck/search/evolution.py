"""Searches of a space of shapes: random, by a rule of thumb, and evolutionary. Pure: they ask what a shape is worth.

Reference: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686), whose searches Bigger&Faster (arXiv:2209.12127) took over:
shapes near a latency bound; an evolution whose generations are half new shapes and half mutations of parents that are
drawn in proportion to their worth; a rule for shapes of one width in all layers. Differs: parents are also crossed, and
a shape is never asked about twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from random import Random

from limbeck.core.search_space import Space
from limbeck.core.shape import Shape

Fits = Callable[[Sequence[Shape]], Sequence[bool]]
"""Whether each of many shapes may be asked about at all; cheap, and asked for thousands at once."""
Worth = Callable[[Sequence[Shape]], Sequence[float]]
"""What shapes are worth, more is better; asked for many at once, so that they can be judged side by side."""
TRIES = 2000  #: shapes that are proposed for one that fits, at most
BATCH = 4096  #: shapes that are proposed at once, at most


def draw(space: Space, fits: Fits, count: int, rng: Random, but: Container[Shape] = ()) -> list[Shape]:
    """At most ``count`` different shapes that fit and are not in ``but``; fewer where the space has no more."""
    return _first(lambda: space.sample(rng), fits, count, but)


def _first(propose: Callable[[], Shape], fits: Fits, count: int, but: Container[Shape]) -> list[Shape]:
    """The first ``count`` different shapes proposed that fit and are not in ``but``.

    They are proposed in batches, twice as large each time: few questions where few shapes fit, no waste where most do.
    """
    found: dict[Shape, None] = {}
    left, batch = TRIES * count, count
    while left > 0 and len(found) < count:
        batch = min(2 * batch, left, BATCH)
        left -= batch
        proposed = dict.fromkeys(propose() for _ in range(batch))
        fresh = [shape for shape in proposed if shape not in found and shape not in but]
        found |= dict.fromkeys(shape for shape, good in zip(fresh, fits(fresh), strict=True) if good)
    return list(found)[:count]


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
    rng: Random,
) -> Iterator[dict[Shape, float]]:
    """All shapes asked about so far, with their worth, after every generation.

    A generation is ``population`` new shapes: a share ``explore`` drawn from the space, the rest mutated children of
    two parents among the best ``population``, each drawn with a chance in proportion to its rank.
    """
    known: dict[Shape, float] = {}
    fresh = draw(space, fits, population, rng)
    for generation in range(generations):
        if generation:
            parents = sorted(known, key=lambda shape: -known[shape])[:population]
            wanted = round(population * (1 - explore))
            fresh = _first(_bred(space, parents, mutation, rng), fits, wanted, known)
            fresh += draw(space, fits, population - len(fresh), rng, {*known, *fresh})
        if not fresh:
            return
        known = known | dict(zip(fresh, worth(fresh), strict=True))
        yield known


def _bred(space: Space, parents: Sequence[Shape], mutation: float, rng: Random) -> Callable[[], Shape]:
    """Proposes mutations of crossed parents, of which the better have more."""
    weights = range(len(parents), 0, -1)

    def child() -> Shape:
        one, other = rng.choices(parents, weights, k=2)
        return space.mutate(space.cross(one, other, rng), rng, mutation)

    return child
