import math

import pytest

from limbeck.core.bound import Bound, missing_profile
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.target import Target

WHOLE = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)


def weights(shape):
    return Measurement("weights", float(shape.weights), "1")


def test_a_bound_in_each_of_its_forms():
    assert Bound(latency_ms=2.0).amount(weights, WHOLE) == pytest.approx(2e-3)
    assert Bound(size_mb=2.0).amount(weights, WHOLE) == 2e6
    assert Bound(speedup=4.0).amount(weights, WHOLE) == Bound(keep=0.25).amount(weights, WHOLE) == WHOLE.weights / 4
    assert Bound().amount(weights, WHOLE) == math.inf
    assert Bound(keep=0.5, speedup=2.0).given == ["speedup", "keep"]


def test_latencies_of_shapes_are_not_measured_elsewhere():
    elsewhere = Target(url="http://board:8765")
    assert missing_profile(Target(), measures=True) == {}
    assert missing_profile(elsewhere, measures=False) == {}
    assert "limbeck profile --full" in missing_profile(elsewhere, measures=True)["profile"]
