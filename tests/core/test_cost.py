import numpy as np
from format_cost import FormatCost

from limbeck.core.cost import FunctionCost, RepeatedCost, WidthCost, in_memory
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape

SHAPES = [Shape.uniform(layers=layers, hidden=8, heads=1, ffn=8) for layers in (1, 2, 3)]


def test_many_repeats_the_value_where_there_is_no_interval():
    cost = FunctionCost(lambda shape: Measurement("latency", float(len(shape.layers)), "s"))
    assert cost.many(SHAPES).tolist() == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]


def test_many_gives_the_ends_of_an_interval():
    cost = FunctionCost(lambda shape: Measurement("latency", 2.0, "s", low=1.5, high=2.5))
    np.testing.assert_array_equal(cost.many(SHAPES[:1]), [[2.0, 1.5, 2.5]])


def test_what_is_in_memory_is_built_once():
    memo, built = in_memory(), []
    for name in ("one", "two", "one"):
        assert memo(name, lambda name=name: built.append(name) or {"is": name}) == {"is": name}
    assert built == ["one", "two"]


def test_no_shapes_cost_an_empty_array():
    assert FunctionCost(lambda shape: Measurement("latency", 2.0, "s")).many([]).shape == (0, 3)


def test_a_request_costs_as_many_calls():
    once = FunctionCost(lambda shape: Measurement("latency", float(len(shape.layers)), "s", low=0.5))
    cost = RepeatedCost(once, 6.25, "requests")
    np.testing.assert_allclose(cost.many(SHAPES), once.many(SHAPES) * 6.25)
    fact = cost(SHAPES[1])
    assert (fact.value, fact.low, fact.high, fact.target) == (12.5, 3.125, None, "requests")


def test_every_hidden_width_has_a_cost_of_its_own():
    built = []

    def of_width(hidden):
        built.append(hidden)
        return FunctionCost(lambda shape: Measurement("latency", hidden * len(shape.layers), "s"))

    cost, narrow = WidthCost(of_width), Shape.uniform(layers=2, hidden=4, heads=1, ffn=8)
    assert not built
    assert cost(narrow).value == 8
    assert cost.many([*SHAPES, narrow])[:, 0].tolist() == [8, 16, 24, 8]
    assert cost.many(SHAPES)[:, 0].tolist() == [8, 16, 24]
    assert built == [4, 8]


def test_a_cost_for_all_widths_stays_the_same():
    cost = FormatCost(lambda shape, number_format: Measurement("latency", 1.0, "s"))
    assert cost.of_width(8) is cost
