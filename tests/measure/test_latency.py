from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.shape import Shape
from limbeck.core.step import Probe, RestrictedContext, RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError, MissingExtra
from limbeck.measure import latency
from limbeck.measure.latency import Latency, evaluate, facts, sample_rows, token_batches, token_lists


def context(**target):
    return RestrictedContext(RunContext(target=Target(**target)), Latency.info)


def test_candidates_are_timed_in_one_session(candidate, exported, make_model):
    ragged = replace(candidate, model=make_model(Shape.uniform(2, 32, 4, 64).with_layer(1, heads=1)))
    found = list(Latency(samples=4, rounds=3).measure([candidate, ragged, exported], context()))
    by_name = {(index, fact.name): fact for index, fact in found}
    assert len(by_name) == len(found) == 3 * 4
    assert {fact.detail["session"] for _, fact in found} == {by_name[0, "speedup"].detail["session"]}
    for index in range(3):
        p50, p99 = by_name[index, "latency_p50"], by_name[index, "latency_p99"]
        assert p50.low <= p50.value <= p50.high
        assert p50.value <= p99.value
        assert (p50.unit, p50.n, p50.target) == ("s", 4 * 3 * 2, str(Target()))
        assert len(p50.detail["rounds"]) == 3
        assert 3 < p50.detail["mean_tokens"] < 32
    assert by_name[0, "speedup"].value == 1.0
    runtimes = [by_name[index, "latency_p50"].detail["runtime"] for index in range(3)]
    assert runtimes[0] == "torch eager, BertForSequenceClassification"
    assert runtimes[1] == "torch eager, LimbeckForSequenceClassification"
    assert runtimes[2] == "onnxruntime, model.onnx"


def test_facts_are_computed_from_the_rounds():
    noise = np.random.default_rng(0).uniform(1, 3, (9, 1)) * np.ones((9, 5))
    answer = {"seconds": np.stack([noise, 4 * noise, 2 * noise]), "words": list("abc"), "mean_tokens": [5.0] * 3}
    found = {(index, fact.name): fact for index, fact in facts(answer, ["onnxruntime", "torch", "torch"], Target())}
    assert found[0, "speedup"].value == pytest.approx(4)
    assert found[0, "speedup"].low == pytest.approx(4)
    assert found[2, "speedup"].detail["over"] == "b"
    alone = {(index, fact.name) for index, fact in facts(answer, ["onnxruntime"] * 3, Target())}
    assert (0, "speedup") not in alone


def test_a_missing_runtime_is_refused_before_any_work(candidate, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(latency, "sample_rows", lambda *_: pytest.fail("worked"))
    with pytest.raises(MissingExtra):
        list(Latency().measure([candidate], context(runtime="openvino")))


def test_nothing_to_measure():
    assert list(Latency().measure([], context())) == []
    assert isinstance(Latency(), Probe)


def test_the_sample_has_the_lengths_of_the_split(task):
    rows = sample_rows(task, "test", 10)
    lengths = sorted(len(text) for text in task.split("test").texts)
    sampled = sorted(len(task.split("test").texts[row]) for row in rows)
    assert rows == sample_rows(task, "test", 10) != sorted(rows)
    for place, length in enumerate(sampled):
        assert lengths[4 * place] <= length <= lengths[4 * place + 3]
    assert sorted(sample_rows(task, "test", 99)) == list(range(40))


def test_a_fixed_length_is_met_exactly(candidate, task, tokenizer):
    lists = token_lists(task, "test", range(5), tokenizer, seq_len=20)
    assert {len(ids) for ids in lists} == {20}
    with pytest.raises(InputError, match="at most 64 tokens, got 65"):
        token_lists(task, "test", [0], tokenizer, seq_len=65)
    (batch, rest) = token_batches(candidate, "test", range(5), Target(batch=4, seq_len=9))
    assert np.shape(batch["input_ids"]) == (4, 9)
    assert np.shape(rest["token_type_ids"]) == (1, 9)


def test_batches_are_padded_to_their_longest(candidate, tokenizer):
    (batch,) = token_batches(candidate, "test", [0, 3], Target(batch=2))
    assert np.sum(batch["attention_mask"], axis=1).tolist() == [3, 24]
    assert batch["input_ids"][0][3:] == [tokenizer.pad_token_id] * 21


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
    made = evaluate(candidate.model, candidate.tokenizer, candidate.task, batch=batch, now=Clock())
    calls = -(-40 // batch)
    assert made.total_ms == pytest.approx(calls)
    assert made.mean_ms == pytest.approx(calls / 40)
    assert (made.metric, made.examples) == ("accuracy", 40)
    other = evaluate(exported.model, exported.tokenizer, exported.task, batch=batch)
    assert other.quality == made.quality


def test_a_regression_is_evaluated_in_its_own_unit_too(make_model):
    task = toy_task("regression", train=12, validation=8, test=20)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=1, kind="regression", vocab_size=len(tokenizer))
    found = evaluate(model, tokenizer, task, runtime="torch")
    encoded = encode(task, "test", tokenizer)
    errors = predict(model, encoded)[:, 0] - encoded.labels
    assert found.beside["rmse"][0] == pytest.approx(float((errors**2).mean() ** 0.5), rel=1e-5)
    assert set(found.beside) == {"rmse", "r2"}
