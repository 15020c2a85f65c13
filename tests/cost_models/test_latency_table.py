from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.target import Target
from limbeck.cost_models.latency_table import LatencyTable, typical_length
from limbeck.cost_models.latency_table_fit import designs, fit
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.samples import sample_rows, token_batches

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


@pytest.mark.parametrize("batch", [1, 8])
def test_the_typical_length_is_that_of_the_batches_that_are_timed(batch):
    task = toy_task(train=120)
    train = task.split("train")
    texts = [" ".join([text] * (1 + index % 3)) for index, text in enumerate(train.texts)]
    task = replace(task, splits={**task.splits, "train": replace(train, texts=texts)})
    candidate = Candidate(None, toy_tokenizer(task), task)
    rows = sample_rows(task, "train", 200)
    timed = token_batches(candidate, "train", rows, Target(batch=batch))
    assert typical_length(candidate, batch) == int(np.median([len(inputs["input_ids"][0]) for inputs in timed]))
    assert typical_length(candidate, 8) > typical_length(candidate)


def test_tables_of_other_measurements_have_other_keys(fitted):
    table = fitted
    assert (
        LatencyTable.from_json(table.to_json()).key == table.key != replace(table, constant=table.constant + 1e-6).key
    )
