from __future__ import annotations

import pytest

from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.evaluation import evaluate


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        self.time += 0.001
        return self.time


@pytest.mark.parametrize("option", ["threads", "batch"])
def test_evaluate_needs_at_least_one(candidate, option):
    with pytest.raises(InputError, match=f"{option} should be at least 1 and at most .*, got 0"):
        evaluate(candidate.model, candidate.tokenizer, candidate.task, **{option: 0})


@pytest.mark.parametrize("batch", [1, 7])
def test_evaluate_counts_time_and_accuracy(candidate, exported, batch):
    evaluation = evaluate(candidate.model, candidate.tokenizer, candidate.task, batch=batch, now=Clock())
    calls = -(-40 // batch)
    assert evaluation.total_ms == pytest.approx(calls)
    assert evaluation.mean_ms == pytest.approx(calls / 40)
    assert (evaluation.metric, evaluation.examples) == ("accuracy", 40)
    other = evaluate(exported.model, exported.tokenizer, exported.task, batch=batch)
    assert other.quality == evaluation.quality


def test_a_regression_is_evaluated_in_its_own_unit_too(make_model):
    task = toy_task("regression", train=12, validation=8, test=20)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=1, kind="regression", vocab_size=len(tokenizer))
    evaluation = evaluate(model, tokenizer, task, runtime="torch")
    encoded = encode(task, "test", tokenizer)
    errors = predict(model, encoded)[:, 0] - encoded.labels
    assert evaluation.beside["rmse"][0] == pytest.approx(float((errors**2).mean() ** 0.5), rel=1e-5)
    assert set(evaluation.beside) == {"rmse", "r2"}
