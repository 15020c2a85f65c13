from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from limbeck.core.analytic_cost import macs
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import LayerShape, Shape
from limbeck.cost_models.shape_sampling import everything, sample_shapes, space_below
from limbeck.errors import InputError

TINY = Space(Range(1, 2), Range(8, 16, 8), Range(1, 2), Range(4, 8, 4), Range(4, 4), per_layer=True)


def cost(shape):
    return macs(shape, 32)


@pytest.mark.parametrize("method", ["uniform", "stratified", "around"])
def test_a_draw_is_different_shapes_of_the_space_with_both_ends_and_depends_on_the_seed_alone(space, method):
    front = [space.sample(Random(7)), space.sample(Random(8))] if method == "around" else []
    sampled, again, other = (sample_shapes(space, 60, method=method, seed=seed, around=front) for seed in (1, 1, 2))
    assert sampled == again != other
    assert len(sampled) == len(set(sampled)) == 60
    assert all(shape in space for shape in sampled)
    assert {space.smallest, space.largest, *front} <= set(sampled)
    assert sampled[:2] != [space.smallest, space.largest]  # the order is random: groups mix


def test_strata_are_even_in_the_logarithm_of_the_cost_where_chance_is_not(space):
    counts = {}
    for method in ("uniform", "stratified"):
        heights = np.log([cost(shape) for shape in sample_shapes(space, 120, method=method)])
        counts[method] = np.histogram(heights, bins=6, range=(cost_log(space.smallest), cost_log(space.largest)))[0]
    assert counts["stratified"].min() >= 8
    assert counts["uniform"].min() <= 4


def cost_log(shape):
    return math.log(cost(shape))


def test_any_cost_may_spread_them(space):
    sampled = sample_shapes(space, 50, cost=lambda shape: math.exp(shape.hidden))
    widths = np.histogram([shape.hidden for shape in sampled], bins=4)[0]
    assert widths.min() >= 8


def test_around_a_front_shapes_are_its_neighbors(space):
    front = [space.sample(Random(3))]
    sampled = sample_shapes(space, 30, method="around", around=front)
    near = [shape for shape in sampled if shape not in {space.smallest, space.largest}]
    assert all(abs(shape.hidden - front[0].hidden) <= 32 and abs(shape.depth - front[0].depth) <= 2 for shape in near)
    with pytest.raises(InputError, match="does not lie in the space"):
        sample_shapes(space, 30, method="around", around=[Shape(384, 32, (LayerShape(13, 64),))])
    with pytest.raises(InputError, match="no other method takes them"):
        sample_shapes(space, 30, method="uniform", around=front)


@pytest.mark.parametrize("method", ["uniform", "stratified"])
def test_a_small_space_comes_out_whole(method):
    whole = list(everything(TINY))
    assert len(set(whole)) == len(whole) == TINY.size
    assert set(sample_shapes(TINY, 1000, method=method)) == set(whole)
    uniform = Space(*(getattr(TINY, name) for name in ("layers", "hidden", "heads", "ffn", "head_dim")))
    assert len(set(everything(uniform))) == uniform.size


def test_shapes_may_be_left_out(space):
    earlier = sample_shapes(space, 40)
    assert not set(sample_shapes(space, 40, method="uniform", seed=5, without=set(earlier))) & set(earlier)


def test_a_space_below_a_model(space):
    assert str(space.smallest) == "1x128 heads 1 of 32 ffn 128"
    assert str(space.largest) == "6x384 heads 12 of 32 ffn 1536"
    assert space.per_layer
    small = space_below(Shape.uniform(2, 8, 2, 16), {"layers": [2, 2]}, per_layer=False)
    assert (str(small.smallest), str(small.largest)) == ("2x8 heads 1 of 4 ffn 16", "2x8 heads 2 of 4 ffn 16")
    with pytest.raises(InputError, match="hidden: should be LOW HIGH"):
        space_below(space.largest, {"hidden": [128]})
    with pytest.raises(InputError, match="without layers"):
        space_below(Shape(8, 4, ()))
    with pytest.raises(InputError, match="samples"):
        sample_shapes(space, 1)
