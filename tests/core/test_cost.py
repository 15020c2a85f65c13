import numpy as np

from limbeck.core.cost import FunctionCost, RepeatedCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape

SHAPES = [Shape.uniform(layers=layers, hidden=8, heads=1, ffn=8) for layers in (1, 2, 3)]


def test_many_repeats_the_value_where_there_is_no_interval():
    cost = FunctionCost(lambda shape: Measurement("latency", float(len(shape.layers)), "s"))
    assert cost.many(SHAPES).tolist() == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]


def test_many_gives_the_ends_of_an_interval():
    cost = FunctionCost(lambda shape: Measurement("latency", 2.0, "s", low=1.5, high=2.5))
    np.testing.assert_array_equal(cost.many(SHAPES[:1]), [[2.0, 1.5, 2.5]])


def test_no_shapes_cost_an_empty_array():
    assert FunctionCost(lambda shape: Measurement("latency", 2.0, "s")).many([]).shape == (0, 3)


def test_a_request_costs_as_many_calls():
    once = FunctionCost(lambda shape: Measurement("latency", float(len(shape.layers)), "s", low=0.5))
    cost = RepeatedCost(once, 6.25, "requests")
    np.testing.assert_allclose(cost.many(SHAPES), once.many(SHAPES) * 6.25)
    fact = cost(SHAPES[1])
    assert (fact.value, fact.low, fact.high, fact.target) == (12.5, 3.125, None, "requests")
