import pytest

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.search.bounded_space import BoundedSpace, trained_space
from limbeck.search.cached_cost import CachedCost

SPACE = Space(Range(1, 3), Range(32, 32), Range(1, 4), Range(16, 64, 16), Range(8, 8))
SHAPES = [
    Shape.uniform(layers, 32, heads, ffn, head_dim=8) for layers in (1, 3) for heads in (1, 4) for ffn in (16, 64)
]


def latency(shape):
    value = 1e-6 * sum(row.heads * 8 + row.ffn for row in shape.layers)
    return Measurement("latency_p50", value, "s", 0.8 * value, 1.25 * value)


COSTS = CachedCost(FunctionCost(latency))


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("at_least", [0.0, 0.5])
def test_shapes_fit_between_the_limits(sure, at_least):
    bound = latency(SPACE.largest).value / 2
    bounded = BoundedSpace.near(SPACE, COSTS, bound, at_least=at_least, at_most=1.2, sure=sure)
    for shape, fits in zip(SHAPES, bounded.fits(SHAPES), strict=True):
        cost = latency(shape)
        assert fits == (at_least * bound <= cost.value and (cost.high if sure else cost.value) <= 1.2 * bound)
        assert bounded.price(shape) == (cost.value, bounded.excess([shape])[0])


def test_without_a_bound_everything_fits_and_a_generous_one_still_prefers_the_largest():
    assert all(BoundedSpace(SPACE, COSTS).fits(SHAPES))
    largest = latency(SPACE.largest).value
    assert BoundedSpace.near(SPACE, COSTS, 100 * largest, at_least=0.5).least == 0.5 * largest


def test_a_bound_below_the_smallest_shape_is_out_of_reach():
    smallest = latency(SPACE.smallest)
    for bound in (0.9 * smallest.value, 1.1 * smallest.value, 1.3 * smallest.value):
        for sure in (False, True):
            message = BoundedSpace.near(SPACE, COSTS, bound, sure=sure).out_of_reach()
            assert (message is None) == ((smallest.high if sure else smallest.value) <= bound)
            assert message is None or "is out of reach: 1x32 heads 1 of 8 ffn 16, the smallest slice" in message


def test_a_model_that_is_no_super_network_has_no_space(make_model):
    model = make_model(SPACE.largest)
    with pytest.raises(InputError, match="train it with 'supernet' first"):
        trained_space(model)
    model.config.space = SPACE.to_json()
    assert trained_space(model) == SPACE
    other = make_model(Shape.uniform(2, 32, 4, 64))
    other.config.space = SPACE.to_json()
    with pytest.raises(InputError, match="its space goes up to"):
        trained_space(other)
