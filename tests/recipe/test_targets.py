"""Targets of a recipe are read, named, printed and checked."""

from __future__ import annotations

import random

import pytest

from limbeck.core.step_keys import identity
from limbeck.core.target import Budget, Limits, Target
from limbeck.errors import RecipeError
from limbeck.recipe.parsing import registry
from limbeck.recipe.recipe import Recipe, check, dump, parse, to_data
from limbeck.recipe.targets import MAX_TARGETS, budget_path, path_of, read_settings, unknown_target

BASE = {"model": "bert", "task": "movie-reviews", "steps": []}
TARGETS = {"server": {"threads": 8, "runtime": "onnxruntime"}, "laptop": {"budget": {"latency_ms": 5}}}


def test_limits_of_a_target_replace_those_of_the_recipe():
    recipe = parse({**BASE, "targets": TARGETS, "budget": {"latency_ms": 2, "max_drop": 1}})
    assert recipe.targets == {"server": Target(threads=8), "laptop": Target()}
    assert recipe.settings["server"].budget == Budget(latency_ms=2, max_drop=1)
    assert recipe.settings["laptop"].budget == Budget(latency_ms=5, max_drop=1)
    assert (recipe.target, recipe.at().target, recipe.at("laptop").budget.latency_ms) == (Target(threads=8),) * 2 + (5,)
    assert recipe.at("laptop").targets == recipe.at("laptop").budgets == {}
    single = Recipe("bert", "movie-reviews", target=Target(threads=3))
    assert single.at() is single
    assert list(single.settings) == [""]


def test_a_limit_of_a_target_counts_although_it_is_the_default():
    limits = {"server": {}, "laptop": {"budget": {"confidence": 0.8}}, "board": {"budget": {"max_drop": 2}}}
    recipe = parse({**BASE, "targets": limits, "budget": {"max_drop": 1, "confidence": 0.95}})
    confidence = {"server": 0.95, "laptop": 0.8, "board": 0.95}
    for read in (recipe, parse(to_data(recipe)), parse(to_data(recipe, full=True)), recipe.with_("seed=0")):
        assert {name: setting.budget.confidence for name, setting in read.settings.items()} == confidence
    changed = recipe.with_("targets.board.budget.confidence=0.8")
    assert changed.settings["board"].budget == Budget(max_drop=2, confidence=0.8)
    assert budget_path("laptop", vars(recipe), "confidence") == "targets.laptop.budget.confidence"


def test_a_budget_of_a_target_stands_for_its_limits_that_are_not_the_default():
    targets = {"laptop": Target()}
    for own in (Budget(latency_ms=5), Limits(latency_ms=5)):
        recipe = Recipe(
            "bert", "movie-reviews", targets=targets, budgets={"laptop": own}, budget=Budget(confidence=0.9)
        )
        assert recipe.budgets == {"laptop": Limits(latency_ms=5)}
        assert recipe.settings["laptop"].budget == Budget(latency_ms=5, confidence=0.9)


def test_a_printed_recipe_is_read_back_whatever_its_targets():
    rng = random.Random(0)
    limits = ("latency_ms", "size_mb", "max_drop", "max_flips")
    for _ in range(50):
        names = rng.sample(["a", "B-2", "c_3", "0d", "e" * 40], rng.randint(1, 5))
        targets = {name: Target(threads=rng.randint(1, 9), seq_len=rng.choice([None, 16])) for name in names}
        own = rng.sample(names, rng.randint(0, len(names)))
        budgets = {name: Budget(**{limit: float(rng.randint(1, 9)) for limit in rng.sample(limits, 2)}) for name in own}
        recipe = Recipe("bert", "movie-reviews", targets=targets, budgets=budgets, budget=Budget(max_drop=3.0))
        for full in (False, True):
            data = to_data(recipe, full=full)
            assert "target" not in data
            assert parse(data) == recipe
        assert recipe.with_("seed=0") == recipe
        for name in names:
            assert recipe.at(name).settings == {"": recipe.settings[name]}
    assert "laptop:\n    budget: {latency_ms: 5.0}" in dump(parse({**BASE, "targets": TARGETS}))


def test_fields_of_a_target_are_changed_by_their_path():
    recipe = parse({**BASE, "targets": TARGETS})
    changed = recipe.with_("targets.laptop.budget.max_drop=2", "targets.server.threads=4", "budget.size_mb=9")
    assert changed.settings["laptop"].budget == Budget(latency_ms=5, max_drop=2, size_mb=9)
    assert changed.target.threads == 4
    with pytest.raises(RecipeError, match="targets has no 'sever'; did you mean 'server'"):
        recipe.with_("targets.sever.threads=2")
    with pytest.raises(RecipeError, match="the recipe has no 'target'; did you mean 'targets'"):
        recipe.with_("target.threads=2")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({}, "targets: should map names to targets, as in"),
        (["server"], "targets: should map names to targets, as in"),
        ({"../up": {}}, "targets: a name of a target should be of letters, digits.*got '../up'"),
        ({"": {}}, "a name of a target should be of letters"),
        ({1: {}}, "a name of a target should be of letters.*got 1"),
        ({"a" * 41: {}}, "at most 40"),
        ({"a": {}, "A": {}}, "targets.A: differs from 'a' in case alone"),
        ({"a": {"thread": 1}}, "targets.a.thread: no field called 'thread'; did you mean 'threads'"),
        ({"a": {"threads": 0}}, r"targets.a.threads: should be in \[1, 1,024\], got 0"),
        ({"a": {"budget": {"latency": 1}}}, "targets.a.budget.latency: no field called"),
        ({"a": {"budget": {"latency_ms": -1}}}, "targets.a.budget.latency_ms: should be in"),
        ({"a": 3}, "targets.a: should be a mapping of fields, got 3"),
        ({f"t{number}": {} for number in range(MAX_TARGETS + 1)}, "targets: are 51; at most 50 are possible"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(targets, message):
    with pytest.raises(RecipeError, match=message):
        parse({**BASE, "targets": targets})


def test_one_target_or_several():
    with pytest.raises(RecipeError, match="targets: are in place of 'target'; give one of the two"):
        parse({**BASE, "target": {"threads": 2}, "targets": TARGETS})
    with pytest.raises(RecipeError, match="a recipe has no 'budgets'; did you mean 'budget'"):
        parse({**BASE, "budgets": {}})
    assert parse({**BASE, "target": {"threads": 2}, "targets": None}).target == Target(threads=2)
    assert read_settings({"targets": TARGETS})[1] == []


def test_problems_name_the_target_that_has_them():
    steps = [
        {"prune": {"speedup": 2, "target": "laptop"}},
        {"prune": {"keep": 0.5, "cost": "macs", "target": "server"}},
    ]
    targets = {"server": {"device": "cuda:99"}, "laptop": {"url": "http://board:1", "budget": {"max_drop": 1}}}
    data = {**BASE, "steps": steps, "targets": targets, "budget": {"max_flips": 2}}
    messages = {problem.path: problem.message for problem in check(data)}
    assert "torch finds no device 'cuda:99'" in messages["targets.server.device"]
    assert "no model to compare with" in messages["targets.laptop.budget.max_drop"]
    assert "no model to compare with" in messages["budget.max_flips"]
    assert "is for latencies" in messages["steps[1].prune"]
    fixed = {**data, "steps": steps[:1]}
    messages = {problem.path: problem.message for problem in check(fixed)}
    assert "is needed, since the target is at http://board:1" in messages["steps[0].prune.profile"]


def test_where_things_stand():
    assert (path_of("a"), path_of("")) == ("targets.a", "target")
    values = {"budget": Budget(max_drop=1), "budgets": {"a": Limits(latency_ms=2)}}
    assert [budget_path("a", values, limit) for limit in ("latency_ms", "max_drop")] == [
        "targets.a.budget.latency_ms",
        "budget.max_drop",
    ]
    assert "leave out 'x', or give 'targets'" in unknown_target("x", {"": 1})
    assert "did you mean 'server'" in unknown_target("sever", {"server": 1, "laptop": 2})


@pytest.mark.parametrize(("name", "fields"), [("prune", {"speedup": 2.0}), ("search", {"latency_ms": 2.0})])
def test_the_name_of_a_target_is_in_no_key(name, fields):
    """What it names is, by the services that the step reads."""
    cls = registry()[name]
    step, named = cls.of(**fields), cls.of(**fields, target="laptop")
    assert identity(step) == identity(named)
    assert (step.goal_target(), named.goal_target()) == ("", "laptop")
    assert cls.of(keep=0.5, cost="macs").goal_target() is None
    recipe = Recipe("bert", "movie-reviews", (named,), targets={"server": Target(threads=8), "laptop": Target()})
    assert parse(to_data(recipe)) == recipe
    assert f"steps[0].{name}.target" in {problem.path for problem in check(recipe.at("server"))}
