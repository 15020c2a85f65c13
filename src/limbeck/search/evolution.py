"""Search a space of shapes: at random, by a rule of thumb, or by evolution. Pure functions; the caller scores shapes.

Reference: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686), whose searches Bigger&Faster (arXiv:2209.12127) reused:
shapes near a latency bound; an evolution whose generations are half new shapes and half mutations of parents, sampled
in proportion to their score; a rule for shapes with the same width in all layers. Differs: parents are also crossed
over, sampled in proportion to their rank, and no shape is scored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from random import Random

from limbeck.core.search_space import Space
from limbeck.core.shape import Shape

Fits = Callable[[Sequence[Shape]], Sequence[bool]]
"""Decides for each of many shapes whether it is allowed; cheap, called with thousands at once."""
Score = Callable[[Sequence[Shape]], Sequence[float]]
"""Scores shapes, higher is better; called with many at once, so that they can be evaluated in parallel."""
TRIES = 2000  #: most shapes proposed for each one that fits
BATCH = 4096  #: most shapes proposed at once


def sample_shapes(space: Space, fits: Fits, count: int, rng: Random, exclude: Container[Shape] = ()) -> list[Shape]:
    """Sample different shapes that fit.

    Args:
        space: Where to sample from.
        fits: Which shapes are allowed.
        count: How many shapes to return; fewer come back where the space has no more.
        rng: Source of randomness.
        exclude: Shapes that must not be returned.

    Returns:
        At most ``count`` different shapes.
    """
    return _first_fitting(lambda: space.sample(rng), fits, count, exclude)


def _first_fitting(propose: Callable[[], Shape], fits: Fits, count: int, exclude: Container[Shape]) -> list[Shape]:
    """Return the first ``count`` different proposals that fit and are not excluded.

    Shapes are proposed in batches that double in size: few calls of ``fits`` where few shapes fit, little waste where
    most do.
    """
    fitting: dict[Shape, None] = {}
    left, batch = TRIES * count, count
    while left > 0 and len(fitting) < count:
        batch = min(2 * batch, left, BATCH)
        left -= batch
        proposed = dict.fromkeys(propose() for _ in range(batch))
        fresh = [shape for shape in proposed if shape not in fitting and shape not in exclude]
        fitting |= dict.fromkeys(shape for shape, good in zip(fresh, fits(fresh), strict=True) if good)
    return list(fitting)[:count]


def satisfies_rule(shape: Shape) -> bool:
    """Check AutoTinyBERT's rule: all layers alike, 1.6 d <= FFN <= 1.9 d, 0.7 d <= attention width <= d.

    >>> satisfies_rule(Shape.uniform(4, 384, 12, 640)), satisfies_rule(Shape.uniform(4, 384, 12, 1536))
    (True, False)
    """
    row = shape.layers[0]
    attention = row.heads * shape.head_dim
    narrow = 1.6 * shape.hidden <= row.ffn <= 1.9 * shape.hidden
    return narrow and 0.7 * shape.hidden <= attention <= shape.hidden and len(set(shape.layers)) == 1


def evolve(
    space: Space,
    fits: Fits,
    score: Score,
    *,
    population: int = 25,
    generations: int = 4,
    explore: float = 0.5,
    mutation: float = 0.25,
    rng: Random,
) -> Iterator[dict[Shape, float]]:
    """Evolve shapes; yield all scores so far after every generation.

    Args:
        space: The shapes to search.
        fits: Which shapes are allowed.
        score: What to maximize.
        population: New shapes in a generation, and the number of best shapes that become parents.
        generations: How many generations to run.
        explore: Fraction of a generation that is sampled from the space; the rest are mutated children of two parents,
            each sampled in proportion to its rank.
        mutation: Probability that a value of a child changes.
        rng: Source of randomness.

    Yields:
        The score of every shape scored so far.
    """
    scores: dict[Shape, float] = {}
    fresh = sample_shapes(space, fits, population, rng)
    for generation in range(generations):
        if generation:
            # one number decides: it only steers what is tried next, and whatever is tried is scored
            parents = sorted(scores, key=lambda shape: -scores[shape])[:population]
            wanted = round(population * (1 - explore))
            fresh = _first_fitting(_breeder(space, parents, mutation, rng), fits, wanted, scores)
            fresh += sample_shapes(space, fits, population - len(fresh), rng, {*scores, *fresh})
        if not fresh:
            return
        scores = scores | dict(zip(fresh, score(fresh), strict=True))
        yield scores


def _breeder(space: Space, parents: Sequence[Shape], mutation: float, rng: Random) -> Callable[[], Shape]:
    """Return a function that proposes mutated crossovers of parents; better parents are chosen more often."""
    weights = range(len(parents), 0, -1)

    def child() -> Shape:
        mother, father = rng.choices(parents, weights, k=2)
        return space.mutate(space.cross(mother, father, rng), rng, mutation)

    return child
