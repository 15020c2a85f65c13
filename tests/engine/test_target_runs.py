"""Several targets of one recipe are as many runs with one target each, but everything is made once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from format_cost import FormatCost

from limbeck.core.measurement import Measurement
from limbeck.core.target import Budget, Target
from limbeck.engine.result import read_result
from limbeck.errors import RecipeError
from limbeck.recipe.recipe import Fork, Recipe, check

TARGETS = {"server": Target(threads=4), "laptop": Target(threads=1), "board": Target(threads=2, batch=2)}
BUDGETS = {"server": Budget(latency_ms=1.0), "laptop": Budget(latency_ms=2.0)}
SEVERAL = {"targets": TARGETS, "budgets": BUDGETS, "budget": Budget(latency_ms=4.0)}


def alone(go, name, *steps, folder="", **more):
    """The same recipe for one target alone, in the same store."""
    recipe = Recipe("model", "task", **SEVERAL).at(name)
    return go(*steps, folder=folder or f"run-{name}", target=recipe.target, budget=recipe.budget, **more)


def outcome(result, among=None):
    """What a run says, but for the session of a measurement; records ``among`` those of another run."""
    records = {
        key: replace(record, duration=0.0, facts=tuple(replace(fact, detail={}) for fact in record.facts))
        for key, record in result.records.items()
        if among is None or key in among
    }
    return (result.front, result.chosen, result.reference, result.replicas, records)


def result_of_run(toys):
    """What was trained, made and judged; a session of times is repeated where probes follow each other."""
    return [call for call in toys.calls() if not call.startswith(("open", "clock"))]


def cost(candidate, target, memo, whole):
    return FormatCost(lambda shape, number_format: Measurement("latency", 1.0 / target.threads, "s"))


def pipeline(toys, rng):
    """Random steps: forks, probes between techniques, choices that narrow a front, and a final one."""
    branches = [
        (),
        (toys.ToyPrune(rng.choice([0.25, 0.5])),),
        (toys.ToyLevels((6, 4, 2)), toys.ToyClock(), toys.ToyFaster()),
        (toys.ToyTrain(1), Fork(((), (toys.ToyPrune(0.5),)))),
        (toys.ToyBreak(below=9),),
    ]
    forks = Fork(tuple(rng.sample(branches, rng.randint(1, 4))))
    narrowed = (toys.ToyClock(), toys.ToyFaster()) if rng.random() < 0.5 else ()
    ends = (toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin(), toys.ToyQuality())
    return (toys.ToyTrain(2), forks, *narrowed, toys.ToyExport(), *ends)


@pytest.mark.parametrize("seed", range(8))
def test_each_target_has_the_result_of_a_run_for_it_alone_and_nothing_is_done_twice(go, toys, seed):
    steps = pipeline(toys, random.Random(seed))
    several = go(*steps, folder="several", replicas=2, **SEVERAL)
    done = result_of_run(toys)
    for name in TARGETS:
        single = alone(go, name, *steps, replicas=2)
        assert outcome(single) == outcome(several.targets[name], among=single.records)
    assert result_of_run(toys) == done
    again = go(*steps, folder="several", replicas=2, **SEVERAL)
    assert {name: outcome(each) for name, each in again.targets.items()} == {
        name: outcome(each) for name, each in several.targets.items()
    }


def test_runs_for_single_targets_leave_nothing_to_do_for_all(go, toys):
    steps = pipeline(toys, random.Random(1))
    for name in TARGETS:
        alone(go, name, *steps)
    done = result_of_run(toys)
    go(*steps, **SEVERAL)
    assert result_of_run(toys) == done


def test_times_are_measured_once_for_each_target(go, toys):
    steps = (toys.ToyTrain(), toys.ToyLevels((8, 4)), toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin())
    several = go(*steps, **SEVERAL)
    assert toys.calls().count("clock 3") == len(TARGETS)
    for name in TARGETS:
        assert alone(go, name, *steps).records == {
            key: several.targets[name].records[key] for key in several.targets[name].records
        }
    go(*steps, **SEVERAL)
    assert toys.calls().count("clock 3") == len(TARGETS)


def test_targets_choose_by_their_own_times_and_limits(go, toys):
    steps = (toys.ToyTrain(), toys.ToyLevels((8, 4, 2)), toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin())
    result = go(*steps, **SEVERAL)

    def chosen(name):
        (key,) = result.targets[name].chosen
        record = result.targets[name].records[key]
        return record.shape.layers[0].ffn, record.fact("latency_p50").value

    assert [chosen(name) for name in TARGETS] == [(4, 0.001), (2, 0.002), (8, 0.004)]
    assert result.chosen == [each.chosen[0] for each in result.targets.values()]
    assert result.front == result.chosen
    assert [call for call in toys.calls() if call.startswith("epoch")] == ["epoch 1.0 0", "epoch 1.0 1"]
    assert result.records == result.targets["server"].records
    choices = [event for event in go.events if event["kind"] == "choice"]
    assert [event["target"] for event in choices] == list(TARGETS)


def test_the_ledger_has_every_target(go, toys):
    steps = pipeline(toys, random.Random(3))
    result = go(*steps, replicas=2, **SEVERAL)
    read = read_result(result.folder, result.store)
    assert read.recipe == result.recipe
    assert list(read.targets) == list(result.targets)
    for name, each in result.targets.items():
        assert outcome(read.targets[name]) == outcome(each)
    assert outcome(read) == outcome(result)
    assert read.targets["laptop"].open(result.chosen[0]).model == result.open(result.chosen[0]).model


def test_an_unfinished_run_has_no_choice_on_any_target(go, toys):
    result = go(toys.ToyTrain(), toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin(), **SEVERAL)
    ledger = result.folder / "ledger.jsonl"
    ledger.write_text("".join(line for line in ledger.open() if '"finished"' not in line))
    read = read_result(result.folder)
    assert [each.chosen for each in read.targets.values()] == [[], [], []]
    assert all(each.gaps and each.measured for each in read.targets.values())


def test_a_goal_is_for_the_first_target_or_that_which_the_step_names(go, toys):
    named = go(toys.ToyTrain(), toys.ToyGoal("laptop"), toys.ToyClock(), toys.ToyWithin(), cost=cost, **SEVERAL)
    notes = [event["message"] for event in go.events if event["kind"] == "note"]
    assert "steps[1].toy-goal: the goal is a latency on the target 'laptop'" in notes
    unnamed = go(toys.ToyTrain(), toys.ToyGoal(), toys.ToyClock(), toys.ToyWithin(), cost=cost, **SEVERAL)
    (note,) = [event["message"] for event in go.events if event["kind"] == "note" and "goal" in event["message"]]
    assert "'server', the first of 3; 'target: laptop' in the step names another" in note
    for result, target, weights in ((named, "laptop", [1.0, 1.0]), (unnamed, "server", [0.25, 4.0])):
        assert result.open(result.front[0]).model.weights == weights
        single = alone(go, target, toys.ToyTrain(), toys.ToyGoal(), toys.ToyClock(), toys.ToyWithin(), cost=cost)
        assert single.front == result.front
    reopened = read_result(unnamed.folder)
    assert set(reopened.targets["board"].records) == set(unnamed.records)


def test_what_is_not_for_a_target_is_not_measured_there(go, toys, monkeypatch):
    def problems(self, target, others):
        return {"fused": "holds operators of another runtime"} if target.threads == 4 else {}

    monkeypatch.setattr(toys.ToyExport, "target_problems", problems)
    branches = Fork(((toys.ToyExport(),), ()))
    result = go(toys.ToyTrain(), branches, toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin(), **SEVERAL)
    exported = next(key for key, record in result.records.items() if record.step == "toy-export")
    measured = {name: exported in each.measured for name, each in result.targets.items()}
    assert measured == {"server": False, "laptop": True, "board": True}
    assert result.ok
    notes = [event["message"] for event in go.events if event["kind"] == "note"]
    assert any("fork[0][0].toy-export: is not for the target 'server': fused holds" in note for note in notes)
    assert not check(result.recipe)
    single = Recipe(result.recipe.model, "movie-reviews", result.recipe.steps, target=TARGETS["server"])
    assert [problem.path for problem in check(single)] == ["steps[1].fork[0][0].toy-export.fused"]


def test_a_candidate_that_fails_on_one_target_stays_on_the_others(go, toys, monkeypatch):
    measure = toys.ToyClock.measure

    def refuse(self, candidates, context):
        if context.target.threads == 1 and any(each.model.ffn == 2 for each in candidates):
            raise RuntimeError("cannot run here")
        yield from measure(self, candidates, context)

    monkeypatch.setattr(toys.ToyClock, "measure", refuse)
    result = go(toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyClock(), **SEVERAL)
    assert [len(each.front) for each in result.targets.values()] == [2, 1, 2]
    assert [failure.error for failure in result.failed] == ["RuntimeError: cannot run here"]


def test_unknown_targets_are_refused(go, toys):
    with pytest.raises(RecipeError, match=r"toy-goal.target: the recipe has no target called 'lapto'; did"):
        go(toys.ToyTrain(), toys.ToyGoal("lapto"), **SEVERAL)
    with pytest.raises(RecipeError, match=r"the recipe has one target, without a name; leave out 'laptop'"):
        go(toys.ToyTrain(), toys.ToyGoal("laptop"))
    recipe = Recipe("model", "task", **SEVERAL)
    with pytest.raises(RecipeError, match=r"no target called 'x'"):
        recipe.at("x")
    with pytest.raises(RecipeError, match=r"budgets: the recipe has no target called 'x'"):
        Recipe("model", "task", targets=TARGETS, budgets={"x": Budget()})
    with pytest.raises(RecipeError, match="in place of target"):
        Recipe("model", "task", target=Target(threads=9), targets=TARGETS)
