from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.cost import FunctionCost, measure_now
from limbeck.core.measurement import Measurement
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.cost_models.collection import collect
from limbeck.cost_models.measured_cost import MeasuredCost
from limbeck.cost_models.table_measurement import Anchor
from limbeck.data.synthetic import toy_task, toy_tokenizer

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 3), Range(16, 32, 16), Range(1, 4), Range(16, 64, 16), Range(8, 8))


@pytest.fixture
def supernet(make_model):
    task = toy_task(train=16, validation=40)
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer))
    model.config.space = SPACE.to_json()
    return Candidate(model, tokenizer, task)


def latency(shape, number_format):
    """A machine on which every neuron and channel takes its time, and INT8 half of it."""
    value = 1e-6 * sum(shape.hidden * (row.heads + row.ffn) for row in shape.layers)
    value *= 0.5 if number_format == "int8" else 1.0
    return Measurement("latency_p50", value, "s", 0.9 * value, 1.1 * value)


def timed(shapes, setting, plan):
    """A machine without noise: four rounds of two calls."""
    seconds = [latency(shape, setting.number_format).value for shape in shapes]
    return np.tile(np.array(seconds)[:, None, None], (1, 4, 2))


def test_an_elastic_width_has_a_learned_latency(supernet, monkeypatch):
    """No table knows other hidden widths, so shapes of the space are measured, once."""
    built = []

    def memo(name, build):
        built.append(name)
        return build()

    monkeypatch.setattr("limbeck.cost_models.latency_predictor.SAMPLES", 30)
    monkeypatch.setattr("limbeck.cost_models.collection.collect", partial(collect, timer=timed))
    cost = MeasuredCost(supernet, Target(), memo)
    for shape in (SPACE.smallest, SPACE.largest):
        learned = cost.for_format("int8")(shape)
        assert learned.detail["source"] == "predictor"
        assert learned.value == pytest.approx(latency(shape, "int8").value, rel=0.15)
    assert len(built) == 1
    assert built[0].startswith("latency-predictor-")


def test_for_a_fixed_width_there_is_one_table_a_format(make_model, supernet, monkeypatch):
    """Measured at the first question and never again."""
    del supernet.model.config.space
    requests = []
    monkeypatch.setattr(
        "limbeck.cost_models.table_measurement.memoized",
        lambda candidate, target, number_format, memo, whole, anchor: (
            requests.append((number_format, whole)) or object()
        ),
    )
    cost = MeasuredCost(supernet, Target(), lambda name, build: build(), FULL)
    assert not requests
    assert cost.for_format("int8") is cost.for_format("int8")
    assert cost.for_format("float") is not cost.for_format("int8")
    assert requests == [("int8", FULL), ("float", FULL)]


def tables_asked_for(monkeypatch):
    """Return where each table that is asked for is noted down, with its target, its whole shape and its anchor."""
    requests = []

    def table(candidate, target, number_format, memo, whole, anchor):
        requests.append((target, whole, anchor))
        return FunctionCost(lambda shape: latency(shape, number_format))

    monkeypatch.setattr("limbeck.cost_models.table_measurement.memoized", table)
    return requests


def anchor(shape):
    return Anchor(shape, latency(shape, "int8").value)


def test_another_hidden_width_has_a_table_of_the_same_layers(supernet, monkeypatch):
    requests, target = tables_asked_for(monkeypatch), Target(threads=2, batch=3)
    assert (cost := MeasuredCost(supernet, target, measure_now)).of_width(16) is cost  # a predictor knows all widths
    del supernet.model.config.space
    cost = MeasuredCost(supernet, target, measure_now, replace(FULL, layers=FULL.layers * 2))
    assert cost.of_width(32) is cost
    cost.of_width(24).for_format("int8")
    whole = replace(FULL, layers=FULL.layers * 2)
    assert requests == [(target, whole, None), (target, replace(whole, hidden=24), anchor(whole))]
    assert cost.of_width(24).of_width(32) is cost
    requests.clear()
    cost.of_width(24).of_width(16).for_format("int8")
    assert requests == [(target, whole, None), (target, replace(whole, hidden=16), anchor(whole))], "of the first alone"
    deep = replace(FULL, layers=FULL.layers * 4)
    MeasuredCost(supernet, target, measure_now, deep).of_width(24).for_format("int8")
    assert requests[-1][-1] == anchor(whole), "nothing is extrapolated"


def test_a_schedule_of_tokens_has_a_table_of_the_same_layers(supernet, monkeypatch):
    requests, target = tables_asked_for(monkeypatch), Target(threads=2, batch=3)
    fewer = FULL.with_tokens(0.5, 0.25, 0.2)
    MeasuredCost(supernet, target, measure_now).of_schedule(fewer).for_format("int8")  # though it is elastic now
    assert requests.pop() == (target, fewer, None)
    shallow = replace(FULL, layers=FULL.layers[:2])
    MeasuredCost(supernet, target, measure_now, shallow).of_schedule(fewer).for_format("int8")
    assert requests.pop() == (target, shallow.with_tokens(0.5, 0.2), None)
    del supernet.model.config.space
    cost = MeasuredCost(supernet, target, measure_now, fewer)
    assert cost.of_schedule(fewer) is cost, "it knows the schedule"


def test_a_request_costs_the_calls_of_its_sub_batches(make_model, monkeypatch):
    """The table is of eight documents in a call; a request of fifty takes a little more than six such calls."""
    task = toy_task("rerank", train=24)
    tokenizer = toy_tokenizer(task)
    candidate = Candidate(make_model(FULL, labels=1, kind="rerank", vocab_size=len(tokenizer)), tokenizer, task)
    targets = []

    def table(candidate, target, number_format, memo, whole, anchor):
        targets.append(target)
        return FunctionCost(lambda shape: latency(shape, number_format))

    monkeypatch.setattr("limbeck.cost_models.table_measurement.memoized", table)
    target = Target(candidates=50, threads=2)
    fact = MeasuredCost(candidate, target, measure_now).for_format("int8")(FULL)
    assert targets == [Target(threads=2, batch=8)]
    assert fact.value == pytest.approx(6.25 * latency(FULL, "int8").value)
    assert fact.target == str(target)
