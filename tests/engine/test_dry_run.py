"""A dry run foretells steps, shapes, times and sizes, and does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.core.target import Target
from limbeck.data.synthetic import toy_task
from limbeck.engine.dry_run import plan
from limbeck.engine.run import run
from limbeck.errors import RecipeError
from limbeck.recipe.recipe import Fork, Recipe, parse


@pytest.fixture
def recipe(toys, tmp_path):
    model = toys.model_folder(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(990))
    fork = Fork(((toys.ToyPrune(0.5),), (toys.ToyPrune(0.25),)))
    return Recipe(model, "movie-reviews", (toys.ToyTrain(), fork, toys.ToyQuality(), toys.ToyBest()))


def test_before_anything_ran(toys, recipe, tmp_path):
    planned = plan(recipe, toys.store(tmp_path / "store"), task=toys.ToyTask())
    assert [(row.path, row.step, row.candidate, row.candidates) for row in planned.rows] == [
        ("steps[0]", "toy-train", 1, 1),
        ("steps[1].fork[0][0]", "toy-prune", 1, 1),
        ("steps[1].fork[1][0]", "toy-prune", 1, 1),
        ("steps[2]", "toy-quality", None, 2),
        ("steps[3]", "toy-best", None, 2),
    ]
    assert planned.rows[0].seconds == 14.0  # by the step's own estimate: 7 s for each of 2 rows
    assert planned.rows[0].rough
    assert planned.unknown == 3  # nobody knows the time of the prunings and the probe; a choice takes none
    assert planned.task_rows == {"train": 2}
    assert not any(row.done for row in planned.rows)
    assert toys.calls() == []
    assert not (tmp_path / "store").exists()


def test_shapes_and_sizes_where_they_are_known(toys, recipe, tmp_path):
    planned = plan(replace(recipe, steps=(toys.ToyPrune(0.5), toys.ToyPrune(0.5))), tmp_path / "s", task=toys.ToyTask())
    assert [row.shape.layers[0].ffn for row in planned.rows] == [4, 2]
    assert [row.bytes for row in planned.rows] == [1000 - 4 * 2 * 4 * 4, 1000 - 4 * 2 * 4 * 6]


def test_after_a_run(toys, recipe, tmp_path):
    store = toys.store(tmp_path / "store")
    run(recipe, store, tmp_path / "run", task=toys.ToyTask())
    before = toys.calls()
    planned = plan(recipe, store, task=toys.ToyTask())
    assert all(row.done for row in planned.rows)
    assert (planned.seconds, planned.bytes, planned.unknown) == (0, 0, 0)
    assert [row.shape.layers[0].ffn for row in planned.rows[:3]] == [8, 4, 2]
    longer = plan(recipe.with_("steps.0.toy-train.epochs=3"), store, task=toys.ToyTask())
    assert not any(row.done for row in longer.rows)
    assert longer.unknown == 0  # times of the earlier run
    assert toys.calls() == before


def test_an_unknown_shape_is_not_guessed_and_times_are_those_of_the_shape_before(toys, recipe, tmp_path):
    planned = plan(replace(recipe, steps=(toys.ToyLevels(), toys.ToyTrain())), tmp_path / "s", task=toys.ToyTask())
    assert [row.shape for row in planned.rows] == [None, None]
    assert [row.seconds for row in planned.rows] == [None, 14.0]


def test_real_steps_foretell_shapes_and_rough_times(toys, tmp_path):
    model = toys.model_folder(tmp_path / "model")
    steps = [
        "finetune",
        {"prune": {"heads": 0, "ffn": 3}},
        "distill",
        {"prune": {"speedup": 2.0}},
        "export",
        "quantize",
    ]
    recipe = parse({"model": model, "task": "movie-reviews", "steps": steps})
    planned = plan(recipe, tmp_path / "s", task=toy_task(train=10))
    cut = "1x4 heads 0 of 4 ffn 3"
    assert [str(row.shape) for row in planned.rows] == ["1x4 heads 1 of 4 ffn 8", cut, cut, "None", "None", "None"]
    assert all(row.rough and row.seconds > 0 for row in planned.rows)
    assert planned.unknown == 0


def test_rows_that_a_step_adds_count_for_the_steps_after_it(toys, tmp_path):
    model, task = toys.model_folder(tmp_path / "model"), toy_task(train=200)
    plans = []
    for steps in (["finetune"], [{"augment": {"n_iter": 9}}, "finetune"]):
        recipe = parse({"model": model, "task": "movie-reviews", "steps": steps})
        plans.append(plan(recipe, tmp_path / "s", task=task))
    alone, after = (planned.rows[-1].seconds for planned in plans)
    held_out = 2 * len(task.split("validation"))
    assert after / alone == pytest.approx((3 * 2000 + held_out) / (3 * 200 + held_out))
    assert plans[1].task_rows["train"] == 200
    assert str(plans[1].rows[0].shape) == "1x4 heads 1 of 4 ffn 8"


def test_a_wrong_recipe_has_no_plan(toys, tmp_path):
    with pytest.raises(RecipeError, match="1 problem:"):
        plan(Recipe("bert", "movie-reviews", (toys.ToyPrune(2),)), tmp_path, task=toys.ToyTask())


def test_what_is_measured_has_a_row_for_each_target(toys, tmp_path):
    model, store = toys.model_folder(tmp_path / "model"), toys.store(tmp_path / "store")
    steps = (toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin())
    targets = {"server": Target(threads=4), "laptop": Target()}
    recipe = Recipe(model, "movie-reviews", steps, targets=targets)
    rows = plan(recipe, store, task=toys.ToyTask()).rows
    probes = [(row.step, row.target) for row in rows if row.own]
    timed = [("toy-clock", "server"), ("toy-clock", "laptop"), ("toy-within", "server"), ("toy-within", "laptop")]
    assert probes == [("toy-quality", ""), *timed]
    run(recipe.at("laptop"), store, tmp_path / "run", task=toys.ToyTask())
    left = [(row.step, row.target) for row in plan(recipe, store, task=toys.ToyTask()).rows if not row.done]
    assert left == [("toy-clock", "server")]
    single = plan(recipe.at("laptop"), store, task=toys.ToyTask()).to_json()
    assert all("target" not in row for row in single["rows"])
    assert all("target" in row for row in plan(recipe, store, task=toys.ToyTask()).to_json()["rows"])
