import itertools

import numpy as np
import pytest

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model.pruning.goals import CostGoal, UniformGoal
from limbeck.model.pruning.slicing import Scores

FULL = Shape.uniform(layers=2, hidden=16, heads=2, ffn=16)
ORDERS = Scores(
    (np.array([1.0, 5.0]), np.array([2.0, 4.0])), (np.linspace(0.1, 1, 16), np.linspace(1, 0.2, 16)), np.ones(2)
).orders
COST = FunctionCost(lambda shape: Measurement("size", sum(10.0 * row.heads + row.ffn for row in shape.layers), "B"))


def loss(shape):
    heads = sum(order.loss(row.heads) for order, row in zip(ORDERS.heads, shape.layers, strict=True))
    return heads + sum(order.loss(row.ffn) for order, row in zip(ORDERS.ffn, shape.layers, strict=True))


@pytest.mark.parametrize("budget", [12.0, 25.0, 40.0, 60.0, 100.0])
def test_the_least_loss_within_the_budget(budget):
    shape = CostGoal(COST, budget, ffn_multiple=4)(ORDERS, FULL)
    assert COST(shape).value <= budget
    widths = itertools.product(range(3), range(1, 3), range(0, 17, 4), range(0, 17, 4))
    shapes = [FULL.with_layer(0, heads=a, ffn=c).with_layer(1, heads=b, ffn=d) for a, b, c, d in widths]
    assert loss(shape) >= min(loss(each) for each in shapes if COST(each).value <= budget)
    assert loss(shape) <= min(loss(each) for each in shapes if COST(each).value <= 0.97 * budget)  # costs are rounded


def test_the_last_layer_keeps_a_head_and_less_is_out_of_reach():
    assert CostGoal(COST, 10.0).out_of_reach(FULL) is None
    assert [row.heads for row in CostGoal(COST, 10.0)(ORDERS, FULL).layers] == [0, 1]
    message = CostGoal(COST, 9.0).out_of_reach(FULL)
    assert message.startswith("the goal of 9 B is below the 10 of 2x16 heads 0,1")
    with pytest.raises(InputError) as raised:
        CostGoal(COST, 9.0)(ORDERS, FULL)
    assert str(raised.value) == message


def test_a_layer_that_chooses_tokens_keeps_a_head():
    fewer = FULL.with_tokens(0.5, 0.5)
    assert [row.heads for row in CostGoal(COST, 20.0)(ORDERS, fewer).layers] == [1, 1]
    assert "is below the 20 of 2x16 heads 1 of 8 ffn 0 tokens 0.5" in CostGoal(COST, 10.0).out_of_reach(fewer)
    assert UniformGoal(heads=1).shape(fewer).tokens == (0.5, 0.5)


def test_widths_that_the_cost_was_not_measured_at_are_not_tried():
    def cost(shape):
        beyond = ["ffn"] if min(row.ffn for row in shape.layers) < 8 else []
        return Measurement("latency", 1e-3 * COST(shape).value, "s", detail={"extrapolates": beyond})

    shape = CostGoal(FunctionCost(cost), 0.03, ffn_multiple=4)(ORDERS, FULL)
    assert min(row.ffn for row in shape.layers) == 8


def test_equal_widths_leave_narrower_layers_alone():
    ragged = FULL.with_layer(1, heads=1, ffn=5)
    shape = UniformGoal(heads=2, ffn=8)(ORDERS, ragged)
    assert [(row.heads, row.ffn) for row in shape.layers] == [(2, 8), (1, 5)]
    assert UniformGoal(ffn=8).shape(ragged).layers[0].heads == 2
    with pytest.raises(InputError, match="heads: the model has 2 in a layer, got 3; use at most 2"):
        UniformGoal(heads=3)(ORDERS, ragged)
