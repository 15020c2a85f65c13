"""Sample shapes to measure: at random, stratified by cost, or around given shapes.

A random sample of a space with a width per layer contains hardly any very small or very large shapes, because the
widths of the layers average out. A predictor fitted to such a sample would extrapolate where a search ends, so
``stratified`` spreads shapes evenly over the logarithm of a predicted cost.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686) and Bigger&Faster (2022, arXiv:2209.12127) draw their
latency data uniformly. Differs: strata, and the smallest and the largest shape are always among those measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Literal

from limbeck.core.analytic_cost import macs
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError

Method = Literal["uniform", "stratified", "around"]
ENUMERABLE = 20_000  #: a space of at most this many shapes is listed, not sampled
STEPS = {"layers": 1, "hidden": 16, "heads": 1, "ffn": 32, "head_dim": 4}  #: AutoTinyBERT's, for the fields of a space


def space_below(full: Shape, given: Mapping[str, Sequence[int] | None] | None = None, per_layer: bool = True) -> Space:
    """Build the space of the shapes that a search would cut out of ``full``.

    Args:
        full: The largest shape.
        given: Ranges by name, (low, high) or (low, high, step). Those left out default to 1 to all layers and heads, a
            third to all of the hidden width, a twelfth to all of the neurons, and the head width of ``full``.
        per_layer: Whether layers may differ in width.

    >>> space = space_below(Shape.uniform(6, 384, 12, 1536), {"layers": (2, 6, 2)})
    >>> str(space.smallest), str(space.largest)
    ('2x128 heads 1 of 32 ffn 128', '6x384 heads 12 of 32 ffn 1536')
    """
    if not full.layers:
        raise InputError(f"there is no space below an encoder without layers: {full}")
    highest = {"layers": full.depth, "hidden": full.hidden, "head_dim": full.head_dim}
    highest |= {"heads": max(row.heads for row in full.layers), "ffn": max(row.ffn for row in full.layers)}
    lowest = {"layers": 1, "heads": min(1, highest["heads"]), "head_dim": full.head_dim}
    lowest |= {name: _share(highest[name], below, STEPS[name]) for name, below in (("hidden", 3), ("ffn", 12))}
    ranges = {}
    for name, step in STEPS.items():
        wanted = (given or {}).get(name) or (lowest[name], highest[name], step)
        if not 2 <= len(wanted) <= 3:
            raise InputError(f"{name}: should be LOW HIGH or LOW HIGH STEP, got {' '.join(map(str, wanted))}")
        low, high, *steps = wanted
        ranges[name] = Range(low, high, *(steps or (step,)))
    return Space(**ranges, per_layer=per_layer, attention=full.attention)


def _share(whole: int, divisor: int, step: int) -> int:
    return min(whole, max(step, whole // divisor // step * step))


def sample_shapes(
    space: Space,
    count: int,
    *,
    method: Method = "stratified",
    seed: int = 0,
    around: Sequence[Shape] = (),
    cost: Callable[[Shape], float] | None = None,
    without: Container[Shape] = (),
) -> list[Shape]:
    """Sample different shapes in random order; the smallest and the largest of the space are among them.

    Args:
        space: Where they come from.
        count: How many; fewer only where the space has no more.
        method: ``uniform``: every value drawn by itself; ``stratified``: even over the logarithm of ``cost``;
            ``around``: mutations of given shapes.
        seed: Decides the draw.
        around: The given shapes, a front for example; they are among the result.
        cost: Predicted cost of a shape, in any unit; multiply-accumulates of 32 tokens unless given.
        without: Shapes to leave out, such as those that a predictor has learned from.
    """
    if count < 2:
        raise InputError(f"samples: should be at least 2, got {count}")
    if (method == "around") != bool(around):
        raise InputError("the method 'around' needs shapes to draw around, and no other method takes them")
    for shape in around:
        if shape not in space:
            raise InputError(f"{shape} does not lie in the space from {space.smallest} to {space.largest}")
    rng = Random(seed)
    first = [*around, space.smallest, space.largest] if method == "around" else [space.smallest, space.largest]
    must = [shape for shape in dict.fromkeys(first) if shape not in without][:count]
    pool = _pool(space, count, method, rng, around)
    candidates = [shape for shape in pool if shape not in without and shape not in set(must)]
    if method == "stratified":
        predicted = cost or (lambda shape: macs(shape, 32))
        more = _spread(candidates, count - len(must), predicted, rng)
    else:
        more = candidates[: count - len(must)]
    chosen = must + more
    return rng.sample(chosen, len(chosen))


def everything(space: Space) -> Iterator[Shape]:
    """Yield every shape of a space."""
    rows = [LayerShape(heads, ffn) for heads, ffn in product(space.heads, space.ffn)]
    for hidden, head_dim, depth in product(space.hidden, space.head_dim, space.layers):
        stacks = product(rows, repeat=depth) if space.per_layer else ((row,) * depth for row in rows)
        for layers in stacks:
            yield space.shape(hidden, head_dim, layers)


def _pool(space: Space, count: int, method: Method, rng: Random, around: Sequence[Shape]) -> list[Shape]:
    """Return different shapes, more than are wanted where strata choose among them."""
    if method == "around":
        return _different(lambda: _wander(space, rng.choice(around), rng, 2), 3 * count)
    if space.size <= ENUMERABLE:
        listed = list(everything(space))
        return rng.sample(listed, len(listed))
    if method == "uniform":
        return _different(lambda: space.sample(rng), 2 * count + 100)
    even = replace(space, per_layer=False)
    sources = (
        lambda: space.sample(rng),
        lambda: even.sample(rng),
        lambda: _wander(space, space.smallest, rng, 8),
        lambda: _wander(space, space.largest, rng, 8),
    )
    return list(dict.fromkeys(shape for source in sources for shape in _different(source, 3 * count)))


def _different(source: Callable[[], Shape], count: int) -> list[Shape]:
    """Sample up to ``count`` different shapes from a source, which may have fewer."""
    shapes: dict[Shape, None] = {}
    for _ in range(20 * count):
        shapes[source()] = None
        if len(shapes) == count:
            break
    return list(shapes)


def _wander(space: Space, shape: Shape, rng: Random, most: int) -> Shape:
    """Mutate a shape 1 to ``most`` times."""
    for _ in range(rng.randint(1, most)):
        shape = space.mutate(shape, rng, 0.5)
    return shape


def _spread(shapes: Sequence[Shape], count: int, cost: Callable[[Shape], float], rng: Random) -> list[Shape]:
    """Choose ``count`` shapes in turn from strata of equal width in the logarithm of the cost."""
    if not shapes or count < 1:
        return []
    heights = [math.log(max(cost(shape), 1e-30)) for shape in shapes]
    low, width = min(heights), (max(heights) - min(heights)) / count or 1.0
    strata: dict[int, list[Shape]] = {}
    for shape, height in zip(shapes, heights, strict=True):
        strata.setdefault(min(int((height - low) / width), count - 1), []).append(shape)
    queues = [rng.sample(members, len(members)) for _, members in sorted(strata.items())]
    chosen: list[Shape] = []
    while len(chosen) < min(count, len(shapes)):
        left = [queue for queue in queues if queue]
        chosen += [queue.pop() for queue in rng.sample(left, min(len(left), count - len(chosen)))]
    return chosen
