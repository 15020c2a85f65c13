"""Choices, and what they leave out."""

from __future__ import annotations

from dataclasses import replace

from toy_runs import values

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.data.synthetic import toy_task
from limbeck.engine.choosing import better_than_constant


def test_choices_narrow_the_front_and_facts_stay(go, toys):
    result = go(toys.ToyLevels((4, 2, 1)), toys.ToyQuality(), toys.ToyFront(2), toys.ToyBest())
    assert [result.records[key].shape.layers[0].ffn for key in result.front] == [2]
    assert result.chosen == result.front
    assert len(values(result)) == 3
    choices = [event for event in go.events if event["kind"] == "choice"]
    assert [(len(event["among"]), len(event["kept"])) for event in choices] == [(3, 2), (2, 1)]


def test_what_is_no_better_than_a_constant_is_not_chosen_while_something_is():
    """The fastest candidate may be a constant answer; a slower one that learned something goes before it."""
    task = toy_task(train=24, validation=16)

    def rated(key, value):
        return Record(key, None, "model", facts=(Measurement("quality", value, "1", split="validation"),))

    poor, good, unknown = rated("a", 0.1), rated("b", 0.99), replace(rated("c", 0.1), facts=())
    assert better_than_constant(task, [poor, good, unknown]) == [good, unknown]
    assert better_than_constant(task, [poor]) == [poor]
    assert better_than_constant(replace(task, splits={"train": task.split("train")}), [poor, good]) == [poor, good]
