"""What the probes that time models share."""

from __future__ import annotations

import pytest

from limbeck.core.field_groups import fields_of
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.core.step_keys import identity
from limbeck.core.target import Target
from limbeck.measure import timed_session
from limbeck.measure.latency import Latency
from limbeck.measure.throughput import Throughput
from limbeck.measure.timed_session import TimedSample
from limbeck.model.onnx.onnx_model import read_parts

BUSY = {"load": [2.0, 2.5], "others": 0.9, "taken": 0.5, "seconds": 10.0}


def test_the_fields_are_those_that_facts_are_stored_under():
    assert identity(Latency()) == {"samples": 40, "rounds": 15, "warmup": 1, "split": "test"}
    assert identity(Throughput()) == {"samples": 256, "batch": 32, "rounds": 5, "warmup": 1, "split": "test"}
    assert [field.name for field in fields_of(Latency)] == ["samples", "rounds", "warmup", "split"]


def test_every_round_answers_the_sample():
    shape, rows = Shape.uniform(2, 32, 4, 64), {"test": 1000, "train": 10}
    seconds = TimedSample(samples=100, rounds=3).estimated_seconds(shape, rows, 20)
    assert Latency.of(samples=100, rounds=3).estimated_seconds(shape, rows, 20) == seconds
    assert TimedSample(samples=100, rounds=7).estimated_seconds(shape, rows, 20) == pytest.approx(2 * seconds)
    few = TimedSample(samples=100, rounds=3, split="train").estimated_seconds(shape, rows, 20)
    assert few == pytest.approx(seconds / 10)


@pytest.mark.usefixtures("in_process")
def test_facts_say_how_busy_the_machine_was(candidate):
    (fact, *_) = (fact for _, fact in Latency.of(samples=4, rounds=2).measure([candidate], RunContext()))
    assert len(fact.detail["load"]) == 2
    assert fact.detail["others"] >= 0
    assert 0 <= fact.detail["taken"] <= 1
    assert fact.detail["seconds"] > 0


@pytest.mark.parametrize("probe", [Latency, Throughput])
def test_a_busy_machine_is_reported(probe, candidate, monkeypatch):
    answered = {}

    def run_isolated(function, payload, threads, *, pinned):
        answered.update(payload, pinned=pinned)
        return timed_session.session({**payload, "threads": threads}) | {"conditions": BUSY}

    monkeypatch.setattr("limbeck.measure.isolation.run_isolated", run_isolated)
    messages = []
    context = RunContext(log=lambda message, **numbers: messages.append(message))
    (fact, *_) = (fact for _, fact in probe.of(samples=4, rounds=2).measure([candidate], context))
    assert fact.detail["taken"] == 0.5
    assert answered["pinned"]
    (message,) = messages
    assert message.startswith("the machine was busy: other programs used 50% of the core that the target needs")


@pytest.mark.parametrize(("tokens", "long"), [(128, False), (2, True)])
def test_a_torch_model_is_exported_as_its_texts_need(candidate, monkeypatch, tokens, long):
    monkeypatch.setattr("limbeck.model.onnx.graph.LONG_TEXT", tokens)
    with timed_session.exported(candidate, Target()) as path:
        assert read_parts(path)[0].long_texts is long
