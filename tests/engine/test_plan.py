"""A dry run foretells steps, shapes, times and sizes, and does nothing."""

from __future__ import annotations

import pytest

from limbeck.engine.plan import plan
from limbeck.engine.recipe import Fork, Recipe
from limbeck.engine.run import run
from limbeck.errors import RecipeError


@pytest.fixture
def recipe(toys, tmp_path):
    model = toys.model_folder(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"0" * 1000)
    fork = Fork(((toys.ToyPrune(0.5),), (toys.ToyPrune(0.25),)))
    return Recipe(model, "movie-reviews", (toys.ToyTrain(), fork, toys.ToyQuality(), toys.ToyBest()))


def test_before_anything_ran(toys, recipe, tmp_path):
    made = plan(recipe, toys.store(tmp_path / "store"), task=toys.ToyTask())
    assert [(row.path, row.step, row.candidate, row.candidates) for row in made.rows] == [
        ("steps[0]", "toy-train", 1, 1),
        ("steps[1].fork[0][0]", "toy-prune", 1, 1),
        ("steps[1].fork[1][0]", "toy-prune", 1, 1),
        ("steps[2]", "toy-quality", 1, 2),
        ("steps[2]", "toy-quality", 2, 2),
    ]
    assert made.rows[0].seconds == 14.0  # by the step's own estimate: 7 s for each of 2 rows
    assert made.unknown == 4
    assert made.task_rows == {"train": 2}
    assert not any(row.done for row in made.rows)
    assert toys.calls() == []
    assert not (tmp_path / "store").exists()


def test_shapes_and_sizes_where_they_are_known(toys, recipe, tmp_path):
    from dataclasses import replace

    made = plan(replace(recipe, steps=(toys.ToyPrune(0.5), toys.ToyPrune(0.5))), tmp_path / "s", task=toys.ToyTask())
    assert [row.shape.layers[0].ffn for row in made.rows] == [4, 2]
    assert [row.bytes for row in made.rows] == [1000 - 4 * 2 * 4 * 4, 1000 - 4 * 2 * 4 * 6]


def test_after_a_run(toys, recipe, tmp_path):
    store = toys.store(tmp_path / "store")
    run(recipe, store, tmp_path / "run", task=toys.ToyTask())
    before = toys.calls()
    made = plan(recipe, store, task=toys.ToyTask())
    assert all(row.done for row in made.rows)
    assert (made.seconds, made.bytes, made.unknown) == (0, 0, 0)
    assert [row.shape.layers[0].ffn for row in made.rows[:3]] == [8, 4, 2]
    longer = plan(recipe.with_("steps.0.toy-train.epochs=3"), store, task=toys.ToyTask())
    assert not any(row.done for row in longer.rows)
    assert longer.unknown == 0  # times of the earlier run
    assert toys.calls() == before


def test_a_wrong_recipe_has_no_plan(toys, tmp_path):
    with pytest.raises(RecipeError, match="1 problem:"):
        plan(Recipe("bert", "movie-reviews", (toys.ToyPrune(2),)), tmp_path, task=toys.ToyTask())
