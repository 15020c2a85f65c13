"""Allocation by prices that are differences of shapes: against every combination, and against a plain knapsack."""

import itertools
import random
from zlib import crc32

import pytest

from limbeck.core.allocation import Part, allocate, smallest
from limbeck.core.knapsack import Option, choose
from limbeck.core.shape import LayerShape, Shape

WHOLE = Shape.uniform(layers=3, hidden=8, heads=2, ffn=4)


def parts_of(seed, least=0):
    """Every head and neuron may go; what is lost falls with the width."""
    rng = random.Random(seed)
    parts = []
    for layer in range(WHOLE.depth):
        for name, most in (("heads", 2), ("ffn", 4)):
            widths = tuple(range(min(least, most), most + 1))
            losses = sorted((rng.uniform(0, 5) for _ in widths[1:]), reverse=True)
            parts.append(Part(layer, name, widths, (*losses, 0.0)))
    return parts


def lost(shape, parts):
    return sum(part.losses[part.widths.index(getattr(shape.layers[part.layer], part.name))] for part in parts)


def every_shape(parts):
    for widths in itertools.product(*(part.widths for part in parts)):
        rows = [LayerShape(*pair) for pair in zip(widths[::2], widths[1::2], strict=True)]
        yield Shape(WHOLE.hidden, WHOLE.head_dim, tuple(rows))


def additive(shape):
    return 10 + sum((index + 3) * row.heads + 2 * row.ffn for index, row in enumerate(shape.layers))


def cached(shape):
    """Additive, and a third more where weights no longer fit somewhere."""
    total = additive(shape)
    return total * (1 + 0.33 / (1 + 2.0 ** ((40 - total) / 2)))


def jagged(shape):
    """Additive within 5 %, without rhyme or reason."""
    return additive(shape) * (1 + 0.05 * crc32(str(shape).encode()) / 2**32)


def each(cost):
    return lambda shapes: [cost(shape) for shape in shapes]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [15.5, 27, 40, 63])
@pytest.mark.parametrize("unit", [1, 1e-3 / 7])
def test_where_costs_add_up_nothing_loses_less(seed, budget, unit):
    """Costs are whole numbers of units, so most of these budgets are met exactly."""
    parts = parts_of(seed)
    shape = allocate(WHOLE, parts, each(lambda shape: unit * additive(shape)), unit * budget)
    assert additive(shape) <= budget
    best = min(lost(shape, parts) for shape in every_shape(parts) if additive(shape) <= budget)
    assert lost(shape, parts) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_where_costs_add_up_it_is_one_knapsack_from_nothing(seed):
    parts, budget, empty = parts_of(seed), 31.0, Shape(8, 4, (LayerShape(0, 0),) * 3)
    floor = additive(empty)
    units = [
        [
            Option(additive(empty.with_layer(part.layer, **{part.name: width})) - floor, loss)
            for width, loss in zip(part.widths, part.losses, strict=True)
        ]
        for part in parts
    ]
    expected = empty
    for part, index in zip(parts, choose(units, budget - floor), strict=True):
        expected = expected.with_layer(part.layer, **{part.name: part.widths[index]})
    assert allocate(WHOLE, parts, each(additive), budget) == expected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost", [cached, jagged])
def test_where_they_do_not_the_budget_is_kept_and_little_is_given_away(seed, cost):
    parts = parts_of(seed)
    for budget in (20, 35, 50, 100):
        shape = allocate(WHOLE, parts, each(cost), budget)
        assert cost(shape) <= budget
        best = min(lost(shape, parts) for shape in every_shape(parts) if cost(shape) <= 0.93 * budget)
        assert lost(shape, parts) <= best + 1e-9


def test_what_cannot_be_reached_is_no_shape():
    parts = parts_of(0, least=1)
    least = smallest(WHOLE, parts)
    assert least.layers == (LayerShape(1, 1),) * 3
    assert allocate(WHOLE, parts, each(additive), additive(least)) == least
    assert allocate(WHOLE, parts, each(additive), additive(least) - 1e-3) is None


def test_what_fits_stays_whole():
    priced = []

    def cost(shape):
        priced.append(shape)
        return additive(shape)

    assert allocate(WHOLE, parts_of(0), each(cost), 1000) == WHOLE
    assert len(priced) <= 3 + sum(len(part.widths) for part in parts_of(0))  # no second round
