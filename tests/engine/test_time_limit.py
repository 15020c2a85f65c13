"""A run with a limit of time leaves out what would end too late, and says so; the same run goes on with more time."""

from __future__ import annotations

import itertools

import pytest
from limited_runs import LOOSE, left_out, widths

from limbeck.engine import run as running
from limbeck.engine import time_limit
from limbeck.recipe.recipe import Fork
from limbeck.techniques.selection import Cheapest


@pytest.fixture
def late(monkeypatch):
    """Let an hour pass whenever the time is looked at."""
    hours = itertools.count(1)
    monkeypatch.setattr(running, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time_limit, "monotonic", lambda: 3600.0 * next(hours))


@pytest.fixture
def takes(monkeypatch):
    """Set the seconds that steps are expected to take, by name; no time passes."""
    monkeypatch.setattr(running, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time_limit, "monotonic", lambda: 0.0)

    def expect(**seconds):
        names = {name.replace("_", "-"): value for name, value in seconds.items()}
        monkeypatch.setattr(
            time_limit.PastTimes, "seconds", lambda self, step, work: (names.get(step.info.name, 0.0), True)
        )

    return expect


def test_what_would_end_too_late_is_left_out_and_made_with_more_time(limited, family, toys, late):
    result = limited(*family(4, 6), budget=LOOSE, max_minutes=30)
    assert widths(result) == [8]  # the fine-tuning is made in any case
    messages = left_out(limited)
    assert messages[0].startswith("steps[1].fork[1][0] is left out with what follows: ")
    assert len(messages) == 2
    assert all(message.endswith(time_limit.AGAIN) for message in messages)
    assert widths(limited(*family(4, 6), budget=LOOSE)) == [4, 6, 8]
    done = toys.calls()
    assert widths(limited(*family(4, 6), budget=LOOSE, max_minutes=30)) == [4, 6, 8]  # what is finished takes no time
    assert [call for call in toys.calls() if call.startswith("epoch")] == [
        call for call in done if call.startswith("epoch")
    ]


def test_what_would_take_longer_than_is_left_is_not_begun(limited, family, takes):
    """With the measurement of all models after it: 250 s, and 10 s for each of them and for one more."""
    takes(toy_train=250.0, toy_clock=10.0)
    assert widths(limited(*family(4), budget=LOOSE, max_minutes=4.5)) == [4, 8]
    assert widths(limited(*family(4, 6), budget=LOOSE, max_minutes=4.4, folder="shorter", seed=1)) == [8]
    assert left_out(limited)[0].endswith(
        "is left out: with what comes after it, it would take about 270 s, and 0 of 264 s are over; " + time_limit.AGAIN
    )


def test_what_has_to_come_after_a_training_counts_and_what_may_does_not(limited, toys, takes):
    """A second training of the same model has to end, too; the next stage of a family need not."""
    takes(toy_train=100.0)
    twice = (toys.ToyLevels((4,)), toys.ToyTrain(by=0.5), toys.ToyTrain(by=0.25), toys.ToyExport())
    steps = (toys.ToyTrain(), Fork(((), twice)), toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert widths(limited(*steps, budget=LOOSE, max_minutes=2.5)) == [8]
    deeper = (toys.ToyPrune(0.5), toys.ToyTrain(by=0.25), toys.ToyExport())
    staged = (toys.ToyLevels((4,)), toys.ToyTrain(by=0.5), Fork(((toys.ToyExport(),), deeper)))
    steps = (toys.ToyTrain(), Fork(((), staged)), toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert widths(limited(*steps, budget=LOOSE, max_minutes=2.5, folder="staged")) == [2, 4, 8]


def test_long_work_that_trains_no_head_is_left_out_too(limited, toys, takes):
    takes(toy_augment=time_limit.LONG + 100, toy_prune=time_limit.LONG - 1)
    branches = Fork(((), (toys.ToyAugment(), toys.ToyExport()), (toys.ToyPrune(0.5), toys.ToyExport())))
    steps = (toys.ToyTrain(), branches, toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert widths(limited(*steps, budget=LOOSE, max_minutes=0.2)) == [4, 8]
    assert left_out(limited)[0].startswith("steps[1].fork[1][0].toy-augment: ")


def test_outside_of_branches_one_model_goes_on(limited, toys, takes):
    takes(toy_train=100.0)
    steps = (toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyTrain(by=0.5), toys.ToyQuality(), toys.ToyClock())
    assert widths(limited(*steps, Cheapest(), budget=LOOSE, max_minutes=1)) == [2, 8]
    assert len(left_out(limited)) == 1


def test_of_a_fork_whose_branches_all_train_the_last_is_carried_out(limited, toys, late):
    """Also if it is in the last branch of a fork that could deliver nothing else, but not within another fork."""
    trained = [(toys.ToyLevels((width,)), toys.ToyTrain(by=0.5), toys.ToyExport()) for width in (6, 4, 2)]
    after = (toys.ToyQuality(), toys.ToyClock(), Cheapest())
    result = limited(toys.ToyTrain(), Fork(tuple(trained)), *after, budget=LOOSE, max_minutes=1)
    assert widths(result) == [2, 8]
    assert result.chosen
    assert [message.split(" ")[0] for message in left_out(limited)] == ["steps[1].fork[0][0]", "steps[1].fork[1][0]"]
    shown = [event["message"] for event in limited.events if event["kind"] == "finished_model"]
    assert len(shown) == 1
    inner = (toys.ToyLevels((7,)), Fork((trained[1], trained[2])))
    result = limited(toys.ToyTrain(), Fork((trained[0], inner)), *after, budget=LOOSE, max_minutes=1, folder="nested")
    assert widths(result) == [2, 8]
    result = limited(toys.ToyTrain(), Fork((inner, ())), *after, budget=LOOSE, max_minutes=1, folder="first", seed=1)
    assert widths(result) == [8]


def test_if_the_last_branch_of_a_fork_cannot_reach_its_goal_the_one_before_it_is_carried_out(
    limited, toys, late, monkeypatch
):
    monkeypatch.setattr(toys.ToyTrain, "shape_after", lambda self, shape: shape)
    monkeypatch.setattr(toys.ToyPrune, "out_of_reach", lambda self, *asked: "too little" if self.keep < 0.1 else None)
    branches = [(toys.ToyTrain(by=keep), toys.ToyPrune(keep), toys.ToyExport()) for keep in (0.75, 0.5, 0.05)]
    steps = (toys.ToyTrain(), Fork(tuple(branches)), toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert widths(limited(*steps, budget=LOOSE, max_minutes=1)) == [4, 8]
    assert [message.split(" ")[0] for message in left_out(limited)] == ["steps[1].fork[0][0]"]


def test_replicas_that_would_take_too_long_are_left_out(limited, toys, monkeypatch):
    monkeypatch.setattr(running, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time_limit, "monotonic", lambda: 0.0)
    steps = (toys.ToyTrain(), toys.ToyQuality(), toys.ToyClock(), Cheapest())
    assert [len(keys) for keys in limited(*steps, replicas=3, max_minutes=60).replicas.values()] == [2]
    monkeypatch.setattr(time_limit, "monotonic", lambda: 3600.0)
    assert limited(*steps, replicas=3, max_minutes=60, folder="late").replicas == {}
    assert any("replicas are left out: " in event.get("message", "") for event in limited.events)
