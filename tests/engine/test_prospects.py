"""Runs with a time limit leave out trainings that would end too late or could not be chosen, and say why."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from limbeck.core.cost import FormatCost
from limbeck.core.measurement import Measurement
from limbeck.core.target import Budget, Evidence
from limbeck.distributed.config import ExecutorConfig
from limbeck.engine import prospects
from limbeck.errors import InputError
from limbeck.recipe.recipe import Fork, placed_steps
from limbeck.techniques.selection import Best, Cheapest

LOOSE = Budget(max_drop=100.0)


@pytest.fixture
def family(toys):
    """Build the steps of a run: a teacher, and a branch for each width with its training."""

    def build(*members, choice=None):
        branches = [
            (toys.ToyLevels((width,), goal=True), toys.ToyTrain(by=by), toys.ToyExport())
            for width, by in (member if isinstance(member, tuple) else (member, 0.5) for member in members)
        ]
        return toys.ToyTrain(), Fork(((), *branches)), toys.ToyQuality(), toys.ToyClock(), choice or Cheapest()

    return build


@pytest.fixture
def go(go):
    """Run steps; a millisecond for each neuron is predicted."""
    cost = FormatCost(lambda shape, number_format: Measurement("latency_p50", shape.layers[0].ffn / 1e3, "s"))

    def run(*steps, **options):
        result = go(*steps, cost=lambda *given: cost, **options)
        run.events = go.events
        return result

    return run


@pytest.fixture
def late(monkeypatch):
    """Let an hour pass whenever the time is looked at."""
    hours = itertools.count()
    monkeypatch.setattr(prospects, "monotonic", lambda: 3600.0 * next(hours))


def widths(result):
    """Neurons of the models that the final probe measured."""
    return sorted(record.shape.layers[0].ffn for record in result.records.values() if record.fact("latency_p50"))


def left_out(go):
    return [event["message"] for event in go.events if "is left out" in event.get("message", "")]


def tested(monkeypatch, **probability):
    """Let the limit on quality hold with a probability by the width of the model."""

    def evidence(record, whole, budget):
        chance = probability.get(f"w{record.shape.layers[0].ffn}")
        return {} if chance is None else {"max_drop": Evidence(chance)}

    monkeypatch.setattr(prospects, "evidence_of", evidence)


def test_without_a_limit_everything_is_made(go, family, late):
    result = go(*family(4, 6), budget=LOOSE)
    assert (widths(result), left_out(go)) == ([4, 6, 8], [])


def test_what_is_slower_than_a_model_within_the_budget_is_left_out(go, family):
    result = go(*family(4, 6), budget=LOOSE, max_minutes=60)
    assert widths(result) == [4, 8]
    (message,) = left_out(go)
    assert message.startswith("steps[1].fork[2][1].toy-train: toy-train · toy-levels to ")
    assert "it takes about 6.00 ms, and 'toy-train · toy-levels to " in message
    assert message.endswith("(about 4.00 ms) is faster and meets the budget")
    assert result.ok
    assert widths(go(*family(6, 4), budget=LOOSE, max_minutes=60, folder="faster")) == [4, 6, 8]
    accurate = family(4, 6, choice=Best())
    assert widths(go(*accurate, budget=LOOSE, max_minutes=60, folder="best")) == [4, 6, 8]


def test_a_difference_within_the_error_of_the_prediction_decides_nothing(go, family, monkeypatch):
    monkeypatch.setattr(prospects, "MARGIN", 2.0)
    assert widths(go(*family(4, 6), budget=LOOSE, max_minutes=60)) == [4, 6, 8]


def test_what_cannot_meet_the_latency_is_left_out(go, family):
    result = go(*family(4, 2), budget=Budget(latency_ms=3.0), max_minutes=60)
    assert widths(result) == [2, 8]
    assert left_out(go)[0].endswith("it takes about 4.00 ms, more than 3 ms")


def test_what_is_smaller_than_a_model_that_surely_breaks_a_limit_is_left_out(go, family, monkeypatch):
    tested(monkeypatch, w6=0.1)
    result = go(*family(6, 4), budget=Budget(max_drop=1.0), max_minutes=60)
    assert widths(result) == [6, 8]
    assert left_out(go)[0].endswith("(about 6.00 ms), which breaks max_drop, and is trained alike")
    other = family(6, (4, 0.75))
    assert widths(go(*other, budget=Budget(max_drop=1.0), max_minutes=60, folder="other")) == [4, 6, 8]
    tested(monkeypatch, w6=0.5)  # it may still hold
    assert widths(go(*family(6, 4), budget=Budget(max_drop=1.0), max_minutes=60, folder="open")) == [4, 6, 8]


def test_what_would_end_too_late_is_left_out_and_made_with_more_time(go, family, toys, late):
    result = go(*family(4, 6), budget=LOOSE, max_minutes=30)
    assert widths(result) == [8]  # the fine-tuning is made in any case
    told = left_out(go)
    assert told[0].startswith("steps[1].fork[1][0] is left out with what follows: ")
    assert len(told) == 2
    assert all(message.endswith(prospects.AGAIN) for message in told)
    assert widths(go(*family(4, 6), budget=LOOSE)) == [4, 6, 8]
    done = toys.calls()
    assert widths(go(*family(4, 6), budget=LOOSE, max_minutes=30)) == [4, 6, 8]  # what is finished takes no time
    assert [call for call in toys.calls() if call.startswith("epoch")] == [
        call for call in done if call.startswith("epoch")
    ]


def test_what_would_take_longer_than_is_left_is_not_begun(go, family, toys, monkeypatch):
    """With the measurement of all models after it: 250 s, and 10 s for each of them and for one more."""
    needed = {"toy-train": 250.0, "toy-clock": 10.0}
    monkeypatch.setattr(prospects.PastTimes, "seconds", lambda self, step, work: (needed.get(step.info.name), True))
    result = go(*family(4), budget=LOOSE, max_minutes=4.6)
    assert widths(result) == [4, 8]
    result = go(*family(4, 6), budget=LOOSE, max_minutes=4.4, folder="shorter", seed=1)
    assert widths(result) == [8]
    assert left_out(go)[0].endswith(
        "is left out: with what comes after it, it would take about 270 s, and 0 of 264 s are over; " + prospects.AGAIN
    )


def test_finished_models_are_shown_as_they_come(go, family):
    result = go(*family(4), budget=LOOSE, max_minutes=60)
    shown = [event["message"] for event in go.events if event["kind"] == "finished_model"]
    assert [message.rsplit(" · ", 1)[-1].split(",")[0] for message in shown] == ["toy-train", "ONNX"]
    assert shown[1].endswith("on validation, about 4.00 ms")
    kinds = [event["kind"] for event in go.events]
    assert kinds.index("finished_model") < max(n for n, kind in enumerate(kinds) if kind == "facts")
    assert replace(result.recipe, max_minutes=None) != result.recipe


def test_stages_are_not_judged_by_the_first_of_them(go, toys):
    """Later ones are faster than the model that would leave the first one out."""
    fast = (toys.ToyLevels((4,), goal=True), toys.ToyTrain(by=0.5), toys.ToyExport())
    deeper = (toys.ToyPrune(0.25), toys.ToyTrain(by=0.5), toys.ToyExport())
    staged = (toys.ToyLevels((7,), goal=True), toys.ToyTrain(by=0.5), Fork(((toys.ToyExport(),), deeper)))
    steps = (toys.ToyTrain(), Fork(((), fast, staged)), toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert widths(go(*steps, budget=LOOSE, max_minutes=60)) == [1, 4, 7, 8]


def test_workers_begin_everything_at_once(go, family):
    with pytest.raises(InputError, match="max_minutes: is for runs in one process; the executor 'processes'"):
        ExecutorConfig(executor="processes").check(limited=True)


def test_of_two_models_in_one_no_time_is_predicted(go, family):
    result = go(*family(4), budget=LOOSE, max_minutes=60)
    key, records = result.front[-1], result.builder.records
    judge = prospects.Prospects(result.builder, placed_steps(result.recipe), 60)
    assert "about 4.00 ms" in judge.described(key)
    records[key] = replace(records[key], traits=records[key].traits | {"cascade"})
    assert "about" not in judge.described(key)
