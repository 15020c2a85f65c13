"""Runs of the toy steps. Not a test."""

from __future__ import annotations

import pytest

from limbeck.engine.run import run
from limbeck.recipe.recipe import Recipe


@pytest.fixture
def go(toys, tmp_path, monkeypatch):
    """Run steps on the toy model; events are kept in ``go.events``."""
    model = toys.model_folder(tmp_path / "model")

    def run_steps(*steps, folder="run", **more):
        options = {key: more.pop(key) for key in ("task", "cost") if key in more}
        recipe = Recipe(model, "movie-reviews", steps, name="toy", **more)
        run_steps.events = []
        task = options.pop("task", toys.ToyTask())
        store = toys.store(tmp_path / "store")
        return run(recipe, store, tmp_path / folder, run_steps.events.append, task=task, **options)

    return run_steps


def values(result, name="quality"):
    return {key: fact.value for key, record in result.records.items() if (fact := record.fact(name))}
