"""Probes measure what was not measured, together and alone on the machine."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from format_cost import FormatCost
from toy_runs import values

from limbeck.core.measurement import Measurement
from limbeck.engine.run import run
from limbeck.errors import ServiceError
from limbeck.recipe.recipe import Fork, Recipe


def test_probes_measure_only_what_is_missing(go, toys):
    go(toys.ToyLevels((4, 2)), toys.ToyQuality())
    before = len(toys.calls())
    result = go(Fork(((toys.ToyLevels((4, 2)),), ())), toys.ToyQuality())
    assert [call for call in toys.calls()[before:] if "quality" in call] == ["quality 8"]
    assert set(values(result).values()) == {3.0}


def test_a_group_is_measured_whole_beside_the_teacher(go, toys):
    train = toys.ToyTrain()
    first = go(train, toys.ToyPrune(), toys.ToyClock())
    assert toys.calls()[-1] == "clock 2"
    assert values(first, "latency_p50") == {first.teacher: 0.008, first.front[0]: 0.004}
    done = len(toys.calls())
    go(train, toys.ToyPrune(), toys.ToyClock())
    assert len(toys.calls()) == done
    go(train, Fork(((toys.ToyPrune(),), (toys.ToyPrune(0.25),))), toys.ToyClock())
    assert toys.calls()[-1] == "clock 3"


def test_times_of_another_machine_do_not_count(go, toys, monkeypatch):
    from limbeck.engine import services

    def cost(candidate, target, memo, whole):
        return FormatCost(lambda shape, number_format: Measurement("latency", 1.0, "s"))

    steps = (toys.ToyCost(), toys.ToyClock(), toys.ToyQuality())
    here = go(*steps, cost=cost)
    monkeypatch.setattr(services, "machine", lambda: "another")
    before = len(toys.calls())
    assert go(toys.ToyClock(), toys.ToyQuality()).records.keys() < here.records.keys()
    assert [call for call in toys.calls()[before:] if not call.startswith("open")] == ["clock 1", "quality 8"]
    assert go(*steps, cost=cost).front != here.front  # what a table decided is made again


def test_a_probe_that_fails_on_one_measures_the_others(go, toys):
    result = go(toys.ToyLevels((4, 2, 1)), toys.ToyQuality(refuse=2))
    assert [result.records[key].shape.layers[0].ffn for key in result.front] == [4, 1]
    assert len(values(result)) == 2
    assert [failure.error for failure in result.failed] == ["RuntimeError: cannot be measured"]


@pytest.mark.parametrize("together", [True, False])
def test_an_interrupted_probe_keeps_what_it_has_measured(go, toys, monkeypatch, together):
    measure, left = toys.ToyQuality.measure, [KeyboardInterrupt()]

    def interrupted(step, candidates, context):
        if not together and len(candidates) > 1:
            raise RuntimeError("together there is no room")
        for number, fact in measure(step, candidates, context):
            if left and candidates[number].model.ffn == 1:
                raise left.pop()
            yield number, fact

    monkeypatch.setattr(toys.ToyQuality, "measure", interrupted)
    steps = (toys.ToyLevels((4, 2, 1)), toys.ToyQuality())
    with pytest.raises(KeyboardInterrupt):
        go(*steps)
    before = len(toys.calls())
    result = go(*steps)
    measured = [call for call in toys.calls()[before:] if call.startswith("quality")]
    assert measured == (["quality 2", "quality 1"] if together else ["quality 1"])
    assert len(values(result)) == 3


def test_a_probe_that_fails_on_the_last_measures_no_other_twice(go, toys):
    result = go(toys.ToyLevels((4, 2, 1)), toys.ToyQuality(refuse=1))
    assert len(values(result)) == 2
    assert [call for call in toys.calls() if call.startswith("quality")] == [
        f"quality {ffn}" for ffn in (4, 2, 1, 2, 1)
    ]


def test_facts_of_different_sessions_are_not_compared(go, toys):
    train, thin, thinner = toys.ToyTrain(), toys.ToyPrune(), toys.ToyPrune(0.25)
    go(train, thin, toys.ToyClock())
    go(train, thinner, toys.ToyClock())  # measures the teacher again
    result = go(train, thin, toys.ToyClock())
    sessions = {record.fact("latency_p50").detail["session"] for record in result.records.values() if record.facts}
    assert len(sessions) == 1
    assert [call for call in toys.calls() if call.startswith("clock")] == ["clock 2"] * 3


@pytest.fixture
def refuse(toys, monkeypatch):
    """Groups whose widths are refused by the clock; none at first."""
    measure, refused = toys.ToyClock.measure, SimpleNamespace(of=lambda widths: False)

    def timed(self, candidates, context):
        if refused.of([each.model.ffn for each in candidates]):
            raise RuntimeError("cannot be timed")
        yield from measure(self, candidates, context)

    monkeypatch.setattr(toys.ToyClock, "measure", timed)
    return refused


def clocks(toys, before):
    return [call for call in toys.calls()[before:] if call.startswith("clock")]


@pytest.mark.parametrize(("of", "failures"), [(lambda widths: 2 in widths, 1), (lambda widths: len(widths) > 2, 0)])
def test_a_group_that_was_measured_one_by_one_is_not_measured_again(go, toys, refuse, of, failures):
    """One of them cannot be timed, or they are too many for one session."""
    refuse.of, levels = of, toys.ToyLevels((4, 2, 1))
    first, before = go(toys.ToyTrain(), levels, toys.ToyClock()), len(toys.calls())
    assert len(first.failed) == failures
    again = go(toys.ToyTrain(), levels, toys.ToyClock())
    assert facts(again) == facts(first)
    assert again.front == first.front
    assert [failure.error for failure in again.failed] == ["RuntimeError: cannot be timed"] * failures
    assert clocks(toys, before) == []
    refuse.of = lambda widths: False
    larger = go(toys.ToyTrain(), Fork(((levels,), (toys.ToyPrune(),))), toys.ToyClock())
    assert clocks(toys, before) == ["clock 5"]  # another group, and now together
    assert not larger.failed


def test_a_candidate_that_could_not_be_timed_is_tried_again_alone(go, toys, refuse):
    refuse.of = lambda widths: 2 in widths
    steps = (toys.ToyTrain(), toys.ToyLevels((4, 2, 1)), toys.ToyClock())
    first, before = go(*steps), len(toys.calls())
    refuse.of = lambda widths: False
    again = go(*steps)
    assert (len(first.failed), len(again.failed)) == (1, 0)
    assert clocks(toys, before) == ["clock 2"]  # it and the teacher
    assert len(values(again, "latency_p50")) == len(values(first, "latency_p50")) + 1
    assert facts(go(*steps)) == facts(again)
    assert clocks(toys, before) == ["clock 2"]


def facts(result):
    return {key: record.facts for key, record in result.records.items()}


def test_facts_that_a_budget_needs_and_an_earlier_version_did_not_keep_are_measured(go, toys, monkeypatch):
    from limbeck.core.target import Budget

    go(toys.ToyTrain(), toys.ToyClock())
    done = len(toys.calls())
    needed = {"p50": frozenset(), "mean": frozenset({"latency_p50"}), "p99": frozenset({"latency_p99"})}
    monkeypatch.setattr(toys.ToyClock, "newer_facts", lambda step, budget: needed[budget.latency_statistic])
    for statistic in ("p50", "mean"):  # kept
        go(toys.ToyTrain(), toys.ToyClock(), budget=Budget(latency_statistic=statistic))
        assert len(toys.calls()) == done
    go(toys.ToyTrain(), toys.ToyClock(), budget=Budget(latency_statistic="p99"))
    assert [call for call in toys.calls()[done:] if call.startswith("clock")] == ["clock 1"]


def free(machine):
    """Whether another thread may measure on the machine now."""
    taken = threading.Event()

    def take():
        with machine.alone():
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    return taken.wait(0.1)


def test_nothing_else_is_timed_while_something_is(go, toys, monkeypatch, tmp_path):
    store, seen = toys.store(tmp_path / "store"), []

    def note(what):
        seen.append((what, free(store.machine)))

    def cost(candidate, target, memo, whole):
        table = memo("table", lambda: note("table") or {"seconds": np.ones(1)})
        return FormatCost(lambda shape, number_format: Measurement("latency", table["seconds"][0], "s"))

    def opened(*source, **options):
        note("open")
        return toys.open_model(*source, **options)

    measure = toys.ToyClock.measure
    monkeypatch.setattr(toys.ToyClock, "measure", lambda *given: note("clock") or measure(*given))
    recipe = Recipe(str(tmp_path / "model"), "movie-reviews", (toys.ToyCost(), toys.ToyClock()))
    run(recipe, replace(store, open_model=opened), tmp_path / "run", task=toys.ToyTask(), cost=cost)
    assert set(seen) == {("open", True), ("table", False), ("clock", False)}


def test_a_service_that_cannot_be_used_ends_the_run_and_what_was_made_is_kept(go, toys, monkeypatch):
    def refuse(*given):
        raise ServiceError("the measuring service at http://board:1 cannot be reached")

    steps = (toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyClock())
    measure = toys.ToyClock.measure
    monkeypatch.setattr(toys.ToyClock, "measure", refuse)
    with pytest.raises(ServiceError, match="cannot be reached"):
        go(*steps)
    count = len([call for call in toys.calls() if call.startswith("epoch")])
    monkeypatch.setattr(toys.ToyClock, "measure", measure)
    result = go(*steps)
    assert len(values(result, "latency_p50")) == 3
    assert not result.failed
    assert len([call for call in toys.calls() if call.startswith("epoch")]) == count


def test_a_measurement_elsewhere_shares_this_machine(go, toys, monkeypatch, tmp_path):
    from limbeck.core.target import Target
    from limbeck.engine import run, services

    monkeypatch.setattr(services, "machine_at", lambda url: "board")
    monkeypatch.setattr(run, "check_service", lambda target: None)
    monkeypatch.setattr(toys.ToyClock, "info", replace(toys.ToyClock.info, at_target=True))
    store, shared = toys.store(tmp_path / "store"), []
    measure = toys.ToyClock.measure

    def timed(*given):
        with store.machine.working():
            shared.append(True)
        return measure(*given)

    monkeypatch.setattr(toys.ToyClock, "measure", timed)
    go(toys.ToyClock(), target=Target(url="http://board:1"))
    assert shared
