"""A recipe and its task are checked together, before any work."""

from __future__ import annotations

import pytest

from limbeck.engine.checked_task import checked_task
from limbeck.errors import RecipeError
from limbeck.recipe.recipe import Recipe


def test_what_the_task_lacks_is_refused_before_any_work(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", (toys.ToyTrain(1), toys.ToyQuality()))
    assert checked_task(recipe, store, toys.ToyTask()) == toys.ToyTask()
    again = Recipe(recipe.model, "movie-reviews", (toys.ToyTrain(1), toys.ToyTrain(0)))
    with pytest.raises(RecipeError, match="epochs"):
        checked_task(again, store, toys.ToyTask())
    assert not store.root.exists()
