from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.shape import LayerShape, Shape
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.cost_models.latency_table_fit import designs, fit
from limbeck.errors import InputError

FULL = Shape.uniform(layers=6, hidden=48, heads=12, ffn=768)


@pytest.fixture(scope="module")
def fitted():
    shapes, _ = designs(FULL)
    return fit(FULL, shapes, np.array([1e-3 + 1e-9 * shape.weights for shape in shapes]), "here", "float", 25)


def test_json_round_trip(fitted):
    table = replace(fitted, error_median=0.02, error_p95=0.1)
    for ordered in (False, True):
        assert LatencyTable.from_json(json.loads(json.dumps(table.to_json(), sort_keys=ordered))) == table
    hash(table)
    assert "fewer" not in table.to_json()
    fact = table(FULL)
    assert (fact.name, fact.unit, fact.target) == ("latency_p50", "s", "here")
    assert fact.low == pytest.approx(0.9 * fact.value)


def test_what_the_table_does_not_know_is_refused(fitted):
    table = fitted
    with pytest.raises(InputError, match="width 48 with heads of 4"):
        table(Shape.uniform(layers=1, hidden=96, heads=12, ffn=768))
    with pytest.raises(InputError, match="'linear'"):
        table(Shape(48, 4, (LayerShape(1, 1, "linear"),)))
    with pytest.raises(InputError, match="measured in float, so it cannot tell that in int8"):
        table(FULL, number_format="int8")
    assert table(FULL, number_format="float") == table(FULL)
    with pytest.raises(InputError, match=r"whose layers read all tokens, unlike .* tokens 0.5"):
        table(FULL.with_tokens(*[0.5] * 6))
    with pytest.raises(InputError, match="without heads or neurons"):
        designs(Shape(48, 4, ()))


def test_tables_of_other_measurements_have_other_keys(fitted):
    table = fitted
    assert (
        LatencyTable.from_json(table.to_json()).key == table.key != replace(table, constant=table.constant + 1e-6).key
    )
