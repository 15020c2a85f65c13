"""A recipe and its task are checked together, before any work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.checked_task import checked_task
from limbeck.errors import RecipeError
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import Recipe, parse


def test_what_the_task_lacks_is_refused_before_any_work(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    recipe = Recipe(toys.model_folder(tmp_path / "model"), "movie-reviews", (toys.ToyTrain(1), toys.ToyQuality()))
    assert checked_task(recipe, store, toys.ToyTask()) == toys.ToyTask()
    again = Recipe(recipe.model, "movie-reviews", (toys.ToyTrain(1), toys.ToyTrain(0)))
    with pytest.raises(RecipeError, match="epochs"):
        checked_task(again, store, toys.ToyTask())
    assert not store.root.exists()


def test_fields_name_labels_as_the_model_or_as_the_data_do(make_model, tmp_path):
    task = replace(toy_task(train=8, validation=8, test=8), label_names=("0", "1", "2"))
    model = make_model(Shape.uniform(layers=1, hidden=8, heads=2, ffn=8), labels=3)
    model.config.id2label = dict(enumerate(("SAD", "SO-SO", "HAPPY")))
    save_model(model, toy_tokenizer(task), tmp_path / "model")
    folder = str(tmp_path / "model")

    def checked(label):
        step = {"decision": {"positive": label, "threshold": "same-recall"}}
        return checked_task(
            parse({"model": folder, "teacher": folder, "task": "toy", "steps": [step]}), Store(tmp_path / "s"), task
        )

    for label in ("HAPPY", "2", "happy"):
        assert checked(label).label_names == ("0", "1", "2")
    with pytest.raises(RecipeError, match="no class is called 'hapy'; choose from 'HAPPY'"):
        checked("hapy")
