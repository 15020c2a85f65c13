from limbeck.core.measurement import EVALUATED_SHAPES, Measurement
from limbeck.core.shape import Shape
from limbeck.search.evaluated_shapes import evaluated_shapes

SMALL, LARGE = (Shape.uniform(layers=layers, hidden=32, heads=2, ffn=64) for layers in (1, 2))


def test_the_fact_has_every_shape_with_its_score_and_its_cost():
    cost = Measurement("macs", 5e6, "MAC")
    fact = evaluated_shapes({SMALL: 0.7, LARGE: 0.8}, [5e6, 9e6], [LARGE], cost, "f1", "validation")
    assert (fact.name, fact.value, fact.n, fact.split) == (EVALUATED_SHAPES, 2.0, 2, "validation")
    assert {name: fact.detail[name] for name in ("metric", "cost", "unit")} == {
        "metric": "f1",
        "cost": "macs",
        "unit": "MAC",
    }
    assert fact.detail["shapes"] == [[SMALL.to_json(), 0.7, 5e6, False], [LARGE.to_json(), 0.8, 9e6, True]]
