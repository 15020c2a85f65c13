import pytest

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.cost_models.latency_predictor import Predictor
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.search.cached_cost import CachedCost

SHAPES = [Shape.uniform(depth, 32, 4, 64) for depth in (1, 2, 2, 3)]


@pytest.mark.parametrize("ends", [{}, {"low": 0.5, "high": 9.0}])
def test_any_cost_is_asked_once_a_shape(ends):
    priced = []

    def cost(shape):
        priced.append(shape)
        return Measurement("latency_p50", float(shape.depth), "s", **ends)

    costs = CachedCost(FunctionCost(cost))
    expected = [[value, ends.get("low", value), ends.get("high", value)] for value in (1.0, 2.0, 2.0, 3.0)]
    assert costs.many(SHAPES).tolist() == expected
    assert costs.many(SHAPES[:2]).tolist() == expected[:2]
    assert len(priced) == 3
    assert costs(SHAPES[0]) is costs(SHAPES[0])
    assert costs.many([]).shape == (0, 3)


def test_a_predictor_answers_many_as_it_answers_one(setting, space, pretended):
    """Bit by bit, so that what fits does not depend on how it was asked."""
    shapes = sample_shapes(space, 40)
    predictor = Predictor(setting, tuple(shapes), tuple(float(pretended(shape)) for shape in shapes))
    costs, priced = CachedCost(predictor), sample_shapes(space, 100, seed=1)
    assert costs.many(priced).tolist() == [[fact.value, fact.low, fact.high] for fact in map(costs, priced)]
    assert costs.many([]).shape == (0, 3)
